//! Opening the logs that a configuration names: the log, and the one of batches that are set aside.

use std::path::Path;
use std::sync::Arc;

use sluice_settings::ConfigError;
use sluice_store::Stores;
use tokio_util::sync::CancellationToken;

use crate::config::{IngestConfig, LogKind};
use crate::log::kafka::record_bytes;
use crate::log::{EmbeddedLog, EmbeddedOptions, KafkaLog, KafkaOptions, Log};
use crate::quarantine::{self, Quarantine};
use crate::service::BuildError;
use crate::writer::Snapshots;

/// Kept free in every partition's folder, so that deleting works on a full disk.
const BALLAST_BYTES: u64 = 1 << 20;

/// A log of either kind.
#[derive(Clone, Debug)]
pub(crate) enum SomeLog {
    Embedded(Arc<EmbeddedLog>),
    Kafka(KafkaLog),
}

impl SomeLog {
    pub(crate) fn get(&self) -> Arc<dyn Log> {
        match self {
            SomeLog::Embedded(log) => Arc::clone(log) as Arc<dyn Log>,
            SomeLog::Kafka(log) => Arc::new(log.clone()),
        }
    }

    /// What must run while the log is used; an embedded one needs nothing.
    pub(crate) async fn watch(&self, stop: CancellationToken) {
        match self {
            SomeLog::Embedded(_) => stop.cancelled().await,
            SomeLog::Kafka(log) => log.run(stop).await,
        }
    }
}

/// The log.
pub(crate) fn open_log(config: &IngestConfig) -> Result<SomeLog, BuildError> {
    match config.log.kind {
        LogKind::Embedded => {
            let options = EmbeddedOptions {
                generation: config.log.generation,
                partitions: config.log.partitions,
                ..embedded(config)
            };
            open_embedded(&config.data_dir.join("log"), &options)
        }
        LogKind::Kafka => Ok(SomeLog::Kafka(KafkaLog::open(kafka(config)?)?)),
    }
}

/// The log of batches that are set aside.
pub(crate) fn open_quarantine(config: &IngestConfig) -> Result<SomeLog, BuildError> {
    match config.log.kind {
        LogKind::Embedded => {
            let mut options = embedded(config);
            options.max_envelope_bytes = options.max_envelope_bytes.saturating_add(quarantine::NOTE_BYTES);
            open_embedded(&config.data_dir.join(QUARANTINE), &options)
        }
        LogKind::Kafka => {
            let mut options = kafka(config)?;
            options.topic = config.log.kafka.quarantine_topic();
            (options.generation, options.partitions) = (0, 1);
            options.max_record_bytes = options.max_record_bytes.saturating_add(quarantine::NOTE_BYTES);
            Ok(SomeLog::Kafka(KafkaLog::open(options)?))
        }
    }
}

/// The folder of an embedded one.
pub(crate) const QUARANTINE: &str = "quarantine";

pub(crate) fn quarantine_of(log: &SomeLog, config: &IngestConfig) -> Quarantine {
    Quarantine::new(log.get(), config.quarantine.limits())
}

/// Where the states of duplicates are: beside an embedded log, or in the lake.
pub(crate) fn snapshots_of(log: &SomeLog, config: &IngestConfig, stores: &Stores) -> Snapshots {
    match log {
        SomeLog::Kafka(_) => Snapshots::Lake(stores.state.clone()),
        SomeLog::Embedded(_) => Snapshots::Folder(config.data_dir.join("writers")),
    }
}

/// The shape of a log of one partition of generation 0.
pub(crate) fn embedded(config: &IngestConfig) -> EmbeddedOptions {
    EmbeddedOptions {
        generation: 0,
        partitions: 1,
        segment_bytes: config.log.segment,
        max_envelope_bytes: config.gateway.max_batch as u32,
        ballast_bytes: BALLAST_BYTES,
    }
}

fn open_embedded(folder: &Path, options: &EmbeddedOptions) -> Result<SomeLog, BuildError> {
    Ok(SomeLog::Embedded(Arc::new(EmbeddedLog::open(folder, options)?)))
}

fn kafka(config: &IngestConfig) -> Result<KafkaOptions, BuildError> {
    let kafka = &config.log.kafka;
    let properties = kafka
        .resolved()
        .map_err(|(key, why)| ConfigError::value("", &key, why))?;
    Ok(KafkaOptions {
        brokers: kafka.brokers.clone(),
        topic: kafka.topic.clone(),
        generation: config.log.generation,
        partitions: config.log.partitions,
        replication: kafka.replication,
        min_insync: kafka.min_insync,
        create: kafka.create,
        unsafe_settings: kafka.unsafe_settings,
        max_record_bytes: record_bytes(config.gateway.max_batch as u32),
        queue_bytes: kafka.queue,
        timeout: kafka.timeout,
        properties,
    })
}
