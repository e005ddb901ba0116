//! Layer fixtures, oracles and the VM harness for tests
