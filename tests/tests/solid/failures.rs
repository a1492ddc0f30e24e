//! A runner, a QEMU or a guest dies or hangs.
