//! A container that wants out, or wants everything.
