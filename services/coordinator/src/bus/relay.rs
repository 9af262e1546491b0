//! Live events between coordinators, through Redis: the leader writes what it committed to a stream,
//! the others read it, so that each of them serves readers of its own.
//!
//! It is never a truth, and nobody waits for it. What the leader cannot write is lost to the others,
//! who see by its numbers that something is missing and tell their readers so; while Redis is gone
//! they hand readers on to the leader. An entry's id is the event's own (generation and number), so
//! Redis itself refuses what a leader of before still writes.

use bytes::Bytes;
use pomona_api::v1::events::Topic;
use pomona_domain::{Code, Fault};
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamMaxlen, StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands as _, AsyncConnectionConfig, Client, RedisError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Interval;

use super::{Bus, Entry};
use crate::engine::Role;
use crate::metrics::Metrics;

/// Events that may wait for Redis; more are lost to the other coordinators.
const QUEUE: usize = 4096;
/// Events of one round trip.
const AT_ONCE: usize = 256;
/// How long a read waits for news.
const WAIT: Duration = Duration::from_secs(1);
/// Redis is gone when it has not taken a connection, or answered, in this time (beyond [`WAIT`]).
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause before Redis is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// The stream.
const STREAM: &str = "pomona:events";
/// The entry that says that the leader has resigned: others need not wait for its term to end.
const RESIGNED: &str = "resigned";

/// What the leader says.
#[derive(Debug)]
pub(super) struct Said {
    pub epoch: u64,
    pub number: u64,
    /// Nothing: the leader resigns.
    pub event: Option<(Topic, Bytes)>,
}

/// The way to Redis.
struct Relay {
    client: Client,
    bus: Arc<Bus>,
    metrics: Arc<Metrics>,
    role: watch::Receiver<Role>,
    said: mpsc::Receiver<Said>,
}

/// Starts to write or read, as long as the bus lives.
pub fn start(
    url: &str,
    bus: &Arc<Bus>,
    metrics: &Arc<Metrics>,
    role: watch::Receiver<Role>,
) -> Result<JoinHandle<()>, Fault> {
    let client = Client::open(url).map_err(|error| {
        // The address may hold a password.
        Fault::new(
            Code::BadConfig,
            format!("`redis.url` is no address of Redis: {error}"),
        )
        .hint("write it like `redis://host:6379`")
    })?;
    let (say, said) = mpsc::channel(QUEUE);
    bus.relay_through(say);
    let mut relay = Relay {
        client,
        bus: Arc::clone(bus),
        metrics: Arc::clone(metrics),
        role,
        said,
    };
    Ok(tokio::spawn(async move {
        loop {
            let Err(error) = relay.work().await else {
                return;
            };
            relay.lost(&error);
            tokio::time::sleep(PAUSE).await;
        }
    }))
}

impl Relay {
    /// Writes while this coordinator leads and reads while it does not. It ends with the bus, or
    /// when Redis is gone.
    async fn work(&mut self) -> Result<(), RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(WAIT + PATIENCE));
        let mut redis = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        redis::cmd("PING").exec_async(&mut redis).await?;
        if self.metrics.redis.get() == 0 {
            tracing::info!("Redis carries events between coordinators");
        }
        self.metrics.redis.set(1);
        let mut beat = tokio::time::interval(WAIT);
        loop {
            let leads = matches!(*self.role.borrow_and_update(), Role::Leads { .. });
            let goes_on = if leads {
                self.write(&mut redis, &mut beat).await?
            } else {
                self.read(&mut redis).await?
            };
            if !goes_on {
                return Ok(());
            }
        }
    }

    fn lost(&mut self, error: &RedisError) {
        self.bus.relayed(false);
        if self.metrics.redis.get() == 1 {
            tracing::warn!("Redis is gone, readers of events are handed on to the leader: {error}");
        } else {
            tracing::debug!("Redis is still gone: {error}");
        }
        self.metrics.redis.set(0);
        // What waits would come late and with holes in it.
        while let Ok(said) = self.said.try_recv() {
            self.metrics
                .redis_lost
                .inc_by(u64::from(said.event.is_some()));
        }
    }

    /// Writes what comes in a moment; `false` at the end.
    async fn write(
        &mut self,
        redis: &mut MultiplexedConnection,
        beat: &mut Interval,
    ) -> Result<bool, RedisError> {
        let mut said = Vec::new();
        tokio::select! {
            // The last words of a coordinator that stops go before its end.
            biased;
            count = self.said.recv_many(&mut said, AT_ONCE) => if count == 0 {
                return Ok(false);
            },
            changed = self.role.changed() => return Ok(changed.is_ok()),
            // Whether Redis is there is known even when nothing happens.
            _ = beat.tick() => {
                redis::cmd("PING").exec_async(redis).await?;
                return Ok(true);
            }
        }
        let mut pipe = redis::pipe();
        for one in &said {
            let id = format!("{}-{}", one.epoch, one.number);
            let fields: [(&str, &[u8]); 2] = match &one.event {
                Some((topic, frame)) => [("topic", topic.as_str().as_bytes()), ("frame", frame)],
                None => [("topic", RESIGNED.as_bytes()), ("frame", b"")],
            };
            let kept = StreamMaxlen::Approx(self.bus.kept);
            // Refused when a later leader has written: then nobody wants it.
            pipe.xadd_maxlen(STREAM, kept, id, &fields).ignore();
        }
        let Err(error) = pipe.exec_async(redis).await else {
            return Ok(true);
        };
        let lost = said.iter().filter(|one| one.event.is_some()).count();
        self.metrics.redis_lost.inc_by(lost as u64);
        if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() {
            return Err(error);
        }
        tracing::debug!("Redis did not take every event: {error}");
        Ok(true)
    }

    /// Reads what comes in a moment.
    async fn read(&mut self, redis: &mut MultiplexedConnection) -> Result<bool, RedisError> {
        while let Ok(said) = self.said.try_recv() {
            // It was said before another coordinator led.
            drop(said);
        }
        let (epoch, number) = self.bus.newest_id();
        let options = StreamReadOptions::default()
            .count(AT_ONCE)
            .block(usize::try_from(WAIT.as_millis()).unwrap_or(usize::MAX));
        let after = format!("{epoch}-{number}");
        let reply: Option<StreamReadReply> =
            redis.xread_options(&[STREAM], &[after], &options).await?;
        let entries = reply.into_iter().flat_map(|reply| reply.keys);
        for entry in entries.flat_map(|key| key.ids) {
            let topic: Option<String> = entry.get("topic");
            let frame: Option<Vec<u8>> = entry.get("frame");
            let Some(((epoch, number), topic)) = read_id(&entry.id).zip(topic) else {
                continue;
            };
            if topic == RESIGNED {
                self.bus.wake.notify_one();
            }
            let topic = Topic::parse(&topic);
            let frame = frame.map(Bytes::from);
            self.bus.hear(epoch, number, topic.zip(frame));
        }
        if matches!(*self.role.borrow(), Role::Follows { .. }) {
            self.bus.relayed(true);
        }
        Ok(true)
    }
}

fn read_id(id: &str) -> Option<(u64, u64)> {
    let (epoch, number) = id.split_once('-')?;
    Some((epoch.parse().ok()?, number.parse().ok()?))
}

impl Bus {
    /// What another coordinator published; without an event only its number.
    fn hear(&self, epoch: u64, number: u64, event: Option<(Topic, Bytes)>) {
        let mut ring = self.lock();
        if (epoch, number) < (ring.epoch, ring.next) {
            return;
        }
        if (epoch, number) != (ring.epoch, ring.next) {
            // Something is missing: whoever has read less is told so.
            ring.clear();
            ring.epoch = epoch;
            ring.next = number;
        }
        ring.next += 1;
        if let Some((topic, frame)) = event {
            ring.push(Entry {
                number,
                topic,
                frame,
            });
        }
        self.show(ring);
    }

    /// The id of the newest event that is known.
    fn newest_id(&self) -> (u64, u64) {
        let ring = self.lock();
        (ring.epoch, ring.next.saturating_sub(1))
    }
}
