//! Clients that send nonsense, too much, too slowly, or leave.

mod flood;
mod leave;
mod raw;
mod table;
