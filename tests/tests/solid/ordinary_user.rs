//! The daemon as an ordinary user.
