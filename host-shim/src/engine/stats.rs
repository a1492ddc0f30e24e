//! `stats`: one sample of a container, in the shape the CLI computes its percentages from.

use std::sync::Arc;

use proto::sandbox::{BlockIo, StatsRequest, StatsResponse};
use serde_json::{Map, Value, json};

use super::{Engine, clock, container::Container, vm};
use crate::error::Result;

/// A sample; it is the `precpu_stats` of the next.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    read: String,
    cpu: Value,
}

impl Engine {
    /// Takes a sample; `before` is the one before it, if any. A container that does not run has an empty one.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub async fn stats(
        &self,
        container: &Arc<Container>,
        before: Option<&Sample>,
    ) -> Result<(Value, Sample)> {
        self.settled(container).await?;
        let record = container.record();
        let Some(run) = container.run() else {
            return Ok((empty(&record.name, &record.id), Sample::default()));
        };
        let request = StatsRequest { container_id: record.id.clone() };
        let stats = vm::call("stats", vm::QUICK, run.vm.sandbox().stats(request)).await?;
        let sample = Sample { read: clock::now(), cpu: cpu(&stats) };
        let none = Sample { read: clock::ZERO.into(), cpu: cpu_none() };
        let value = shape(&record.name, &record.id, &stats, &sample, before.unwrap_or(&none));
        Ok((value, sample))
    }
}

/// What a guest's numbers become, for a fuzz target.
pub(crate) fn fuzz(stats: &StatsResponse) -> Value {
    let sample = Sample { read: clock::now(), cpu: cpu(stats) };
    shape("name", "id", stats, &sample, &sample)
}

fn shape(name: &str, id: &str, stats: &StatsResponse, sample: &Sample, before: &Sample) -> Value {
    let mut pids = json!({ "current": stats.pids_current });
    if stats.pids_limit > 0 {
        pids["limit"] = json!(stats.pids_limit);
    }
    let networks: Map<String, Value> = stats
        .network_io
        .iter()
        .filter(|io| io.interface != "lo")
        .map(|io| {
            let counters = json!({
                "rx_bytes": io.rx_bytes, "rx_packets": io.rx_packets, "rx_errors": io.rx_errors, "rx_dropped": io.rx_dropped,
                "tx_bytes": io.tx_bytes, "tx_packets": io.tx_packets, "tx_errors": io.tx_errors, "tx_dropped": io.tx_dropped,
            });
            (io.interface.clone(), counters)
        })
        .collect();
    let mut value = json!({
        "name": format!("/{name}"),
        "id": id,
        "read": sample.read,
        "preread": before.read,
        "pids_stats": pids,
        "blkio_stats": block_io(&stats.block_io),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": sample.cpu,
        "precpu_stats": before.cpu,
        "memory_stats": {
            "usage": stats.memory_usage,
            "stats": stats.memory_stat.iter().map(|(key, n)| (key.clone(), json!(n))).collect::<Map<_, _>>(),
            "limit": stats.memory_limit,
        },
    });
    if !networks.is_empty() {
        value["networks"] = Value::Object(networks);
    }
    value
}

fn cpu(stats: &StatsResponse) -> Value {
    json!({
        "cpu_usage": {
            "total_usage": stats.cpu_usage_ns,
            "usage_in_kernelmode": stats.cpu_system_ns,
            "usage_in_usermode": stats.cpu_user_ns,
        },
        "system_cpu_usage": stats.system_cpu_ns,
        "online_cpus": stats.online_cpus,
        "throttling_data": {
            "periods": stats.throttling_periods,
            "throttled_periods": stats.throttled_periods,
            "throttled_time": stats.throttled_ns,
        },
    })
}

/// `precpu_stats` of a first sample.
fn cpu_none() -> Value {
    json!({
        "cpu_usage": { "total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0 },
        "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 },
    })
}

fn block_io(devices: &[BlockIo]) -> Value {
    let entries = |read: fn(&BlockIo) -> u64, write: fn(&BlockIo) -> u64| -> Vec<Value> {
        let entry = |io: &BlockIo, op: &str, value: u64| json!({"major": io.major, "minor": io.minor, "op": op, "value": value});
        devices.iter().flat_map(|io| [entry(io, "read", read(io)), entry(io, "write", write(io))]).collect()
    };
    let bytes = entries(|io| io.read_bytes, |io| io.write_bytes);
    // On cgroup v2 dockerd fills the bytes only.
    json!({
        "io_service_bytes_recursive": if bytes.is_empty() { Value::Null } else { json!(bytes) },
        "io_serviced_recursive": null,
        "io_queue_recursive": null,
        "io_service_time_recursive": null,
        "io_wait_time_recursive": null,
        "io_merged_recursive": null,
        "io_time_recursive": null,
        "sectors_recursive": null,
    })
}

/// What dockerd answers for a container that does not run.
fn empty(name: &str, id: &str) -> Value {
    json!({
        "name": format!("/{name}"),
        "id": id,
        "read": clock::ZERO,
        "preread": clock::ZERO,
        "pids_stats": {},
        "blkio_stats": block_io(&[]),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": cpu_none(),
        "precpu_stats": cpu_none(),
        "memory_stats": {},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cli_computes_with_is_there() {
        let stats = StatsResponse {
            cpu_usage_ns: 5,
            system_cpu_ns: 10,
            online_cpus: 2,
            memory_usage: 7,
            memory_limit: 9,
            memory_stat: [("inactive_file".to_owned(), 3)].into(),
            pids_current: 1,
            ..StatsResponse::default()
        };
        let sample = Sample { read: "r".into(), cpu: cpu(&stats) };
        let value = shape("web", "id", &stats, &sample, &sample);
        assert_eq!(value["precpu_stats"]["cpu_usage"]["total_usage"], 5);
        assert_eq!(value["cpu_stats"]["online_cpus"], 2);
        assert_eq!(value["memory_stats"]["stats"]["inactive_file"], 3);
        assert_eq!(value["name"], "/web");
        assert!(value.get("networks").is_none());
    }
}
