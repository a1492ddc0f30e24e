//! Deletions: OCI image-spec, layer.md, "Whiteouts". They hide lower layers only, never a sibling entry of
//! their own layer, in whichever order the archive has them.

use super::{Id, Kind, Meta, Tree};
use crate::xattr::Xattrs;

impl Tree {
    /// `.wh.NAME`: removes what lower layers have under this name.
    pub(crate) fn whiteout(&mut self, parent: Id, name: &[u8], layer: u32) {
        if let Some(there) = self.name(parent, name) {
            match &self.get(there.id).kind {
                Kind::Dir(_) => {
                    self.prune(there.id, layer);
                    let empty = self.dir(there.id).is_some_and(|dir| dir.entries.is_empty());
                    if there.layer == layer || !empty {
                        if there.layer < layer {
                            self.make_implicit(parent, name, there.id, layer);
                        }
                        self.hide_below(there.id);
                        return;
                    }
                }
                _ if there.layer == layer => return,
                _ => {}
            }
            self.unlink(parent, name);
        }
        if !self.bottom {
            let meta = Meta { mode: 0, ..Meta::IMPLICIT_DIR };
            self.put(parent, name, layer, meta, Xattrs::default(), Kind::Whiteout);
        }
    }

    /// `.wh..wh..opq`: removes what lower layers have in this directory.
    pub(crate) fn opaque(&mut self, dir: Id, layer: u32) {
        self.prune(dir, layer);
        self.hide_below(dir);
    }

    /// Lets overlayfs hide the same directory of the disks below.
    fn hide_below(&mut self, id: Id) {
        let upper = !self.bottom;
        if let Kind::Dir(dir) = &mut self.get_mut(id).kind {
            dir.opaque |= upper;
        }
    }

    /// Removes all names below `dir` that lower layers gave.
    fn prune(&mut self, dir: Id, layer: u32) {
        // Top down, so that the way back sees each directory after all below it.
        let mut order = Vec::new();
        let mut todo = vec![dir];
        while let Some(id) = todo.pop() {
            let Kind::Dir(dir) = &mut self.get_mut(id).kind else { continue };
            if std::mem::replace(&mut dir.pruned, layer) != layer {
                order.push(id);
                todo.extend(dir.entries.values().map(|name| name.id));
            }
        }
        for &id in order.iter().rev() {
            let Some(dir) = self.dir(id) else { continue };
            let old = dir.entries.iter().filter(|(_, to)| to.layer != layer);
            let old: Vec<_> = old.map(|(name, to)| (name.clone(), to.id)).collect();
            for (name, there) in old {
                if self.dir(there).is_some_and(|dir| !dir.entries.is_empty()) {
                    // It holds something of this layer, which does not describe the directory itself.
                    self.make_implicit(id, &name, there, layer);
                } else {
                    self.unlink(id, &name);
                }
            }
        }
    }

    fn make_implicit(&mut self, parent: Id, name: &[u8], id: Id, layer: u32) {
        self.set_meta(id, Meta::IMPLICIT_DIR, Xattrs::default());
        self.set_layer(parent, name, layer);
    }
}
