//! Images, layers and registries that lie.
