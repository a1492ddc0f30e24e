//! `rename`.

use std::sync::{Arc, PoisonError};

use super::{Engine, container::Container, create, record::Record};
use crate::error::{Error, Result};

impl Engine {
    /// Gives a container a new name.
    ///
    /// # Errors
    /// 400 for a bad or equal name, 409 for a taken one.
    pub async fn rename(&self, container: &Arc<Container>, new: &str) -> Result<()> {
        if new.is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let new = create::validate::name(new)?;
        let _life = container.life.lock().await;
        let _writing = container.writing.lock().await;
        let mut record = Record::clone(&container.record());
        let old = std::mem::replace(&mut record.name, new.to_owned());
        if old == new {
            return Err(Error::invalid("Renaming a container with the same name as its current name"));
        }
        let record = Arc::new(record);
        let (stored, freed) = (record.clone(), old.clone());
        self.in_store(move |store| store.rename(&freed, &stored))
            .await
            .map_err(|refused| create::taken(refused, new))?;
        *container.record.write().unwrap_or_else(PoisonError::into_inner) = record;
        self.events.publish(container.event("rename").with("oldName", format!("/{old}")));
        Ok(())
    }
}
