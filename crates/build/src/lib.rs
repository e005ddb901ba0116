//! Joins source, layers, tree and filesystem into an image file
