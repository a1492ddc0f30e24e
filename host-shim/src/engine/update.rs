//! `update`: limits of a container, at once where it runs.

use std::sync::Arc;

use proto::sandbox::UpdateResourcesRequest;

use super::{
    Engine,
    container::Container,
    create::validate,
    model::{HostConfig, RestartPolicy},
    prepare, vm,
};
use crate::error::Result;

impl Engine {
    /// Takes over the limits that are set (zero and empty leave things as they are).
    ///
    /// # Errors
    /// 400 for bad limits.
    pub async fn update(
        &self,
        container: &Arc<Container>,
        wanted: &HostConfig,
        policy: Option<RestartPolicy>,
    ) -> Result<Vec<String>> {
        let _life = container.life.lock().await;
        let mut host = container.record().host.clone();
        merge(&mut host, wanted);
        if let Some(policy) = policy.filter(|policy| !policy.name.is_empty()) {
            host.restart_policy = policy;
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        validate::resources(&host, cores)?;
        if let Some(run) = container.run() {
            let resources = Some(prepare::resources(&host));
            let request = UpdateResourcesRequest { container_id: container.id.clone(), resources };
            vm::call("update", vm::QUICK, run.vm.sandbox().update_resources(request)).await?;
        }
        self.change(container, |record| {
            record.host = host;
            Ok(())
        })
        .await?;
        self.events.publish(container.event("update"));
        Ok(Vec::new())
    }
}

fn merge(host: &mut HostConfig, wanted: &HostConfig) {
    let number = |own: &mut i64, new: i64| {
        if new != 0 {
            *own = new;
        }
    };
    number(&mut host.cpu_shares, wanted.cpu_shares);
    number(&mut host.memory, wanted.memory);
    number(&mut host.memory_swap, wanted.memory_swap);
    number(&mut host.memory_reservation, wanted.memory_reservation);
    number(&mut host.nano_cpus, wanted.nano_cpus);
    number(&mut host.cpu_period, wanted.cpu_period);
    number(&mut host.cpu_quota, wanted.cpu_quota);
    for (own, new) in
        [(&mut host.cpuset_cpus, &wanted.cpuset_cpus), (&mut host.cpuset_mems, &wanted.cpuset_mems)]
    {
        if !new.is_empty() {
            own.clone_from(new);
        }
    }
    if wanted.pids_limit.is_some_and(|limit| limit != 0) {
        host.pids_limit = wanted.pids_limit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_changes_nothing() {
        let mut host = HostConfig { memory: 7, cpu_shares: 3, ..HostConfig::default() };
        merge(&mut host, &HostConfig { cpu_shares: 5, ..HostConfig::default() });
        assert_eq!((host.memory, host.cpu_shares), (7, 5));
    }
}
