//! A guest whose kernel and PID 1 are the enemy's.
