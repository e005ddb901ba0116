//! PID 1 and agent inside the microVM
