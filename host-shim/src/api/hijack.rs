//! Hijacked connections: raw streams after an HTTP upgrade.
