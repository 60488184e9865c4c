//! iceoryx2: publish-subscribe of loaned samples, polled, with blocking instead of overflow.

use crate::Result;
use crate::contest::Contestant;
use crate::contest::Kind::Peer;
use crate::drivers::{Rx, Side, Tx, one_way, round_trip};
use crate::payload::{Payload, capacity};
use crate::stage::Stage;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use std::hint::spin_loop;

/// A payload as iceoryx2 wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Sent<P>(P);

// SAFETY: plain data without pointers.
unsafe impl<P: Payload> ZeroCopySend for Sent<P> {}

impl<P: Payload> std::fmt::Debug for Sent<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(P::NAME)
    }
}

struct Sends<P: Payload>(Publisher<ipc::Service, Sent<P>, ()>);
struct Receives<P: Payload>(Subscriber<ipc::Service, Sent<P>, ()>);

impl<P: Payload> Tx<P> for Sends<P> {
    #[inline]
    fn send(&mut self, sequence: u64) -> Result {
        let mut sample = self.0.loan_uninit()?;
        // SAFETY: plain data, of which every bit pattern is valid; memory of the service is initialised by the kernel.
        unsafe { sample.payload_mut().assume_init_mut() }.0.fill(sequence);
        // SAFETY: as above.
        unsafe { sample.assume_init() }.send()?;
        Ok(())
    }
}

impl<P: Payload> Rx<P> for Receives<P> {
    #[inline]
    fn recv(&mut self) -> Result<u64> {
        loop {
            if let Some(sample) = self.0.receive()? {
                return Ok(sample.0.digest());
            }
            spin_loop();
        }
    }
}

/// What one process has of a service.
type Ends<P> = (Option<Sends<P>>, Option<Receives<P>>);

/// A service for two publishers and as many subscribers.
struct Service {
    node: Node<ipc::Service>,
}

impl Service {
    fn new() -> Result<Service> {
        set_log_level(LogLevel::Fatal);
        Ok(Service { node: NodeBuilder::new().create::<ipc::Service>()? })
    }

    fn ends<P: Payload>(&self, name: &str, sends: bool, receives: bool) -> Result<Ends<P>> {
        let room = capacity::<P>();
        let service = self
            .node
            .service_builder(&ServiceName::new(name)?)
            .publish_subscribe::<Sent<P>>()
            .enable_safe_overflow(false)
            .history_size(0)
            .subscriber_max_buffer_size(room)
            .max_publishers(2)
            .max_subscribers(2)
            .open_or_create()?;
        let publisher = |_| -> Result<Sends<P>> {
            let builder = service.publisher_builder().backpressure_strategy(BackpressureStrategy::RetryUntilDelivered);
            Ok(Sends(builder.create()?))
        };
        let subscriber = |_| -> Result<Receives<P>> { Ok(Receives(service.subscriber_builder().create()?)) };
        Ok((sends.then_some(()).map(publisher).transpose()?, receives.then_some(()).map(subscriber).transpose()?))
    }
}

fn iceoryx_round_trip<P: Payload>(stage: &Stage) -> Result {
    let service = Service::new()?;
    let names = [format!("{}-there", stage.name), format!("{}-back", stage.name)];
    let (_, rx) = service.ends::<P>(&names[1 - stage.role], false, true)?;
    let (tx, _) = service.ends::<P>(&names[stage.role], true, false)?;
    let (Some(mut tx), Some(mut rx)) = (tx, rx) else { return Err("an end is missing".into()) };
    stage.barrier()?;
    round_trip::<P>(stage, &mut tx, &mut rx)
}

fn iceoryx_one_way<P: Payload>(stage: &Stage) -> Result {
    let service = Service::new()?;
    let sends = stage.role.is_multiple_of(2);
    let ends = service.ends::<P>(&stage.name, sends, !sends)?;
    stage.barrier()?;
    match ends {
        (Some(tx), _) => one_way::<P, _, Receives<P>>(stage, Side::Sends(tx)),
        (_, Some(rx)) => one_way::<P, Sends<P>, _>(stage, Side::Receives(rx)),
        _ => Err("an end is missing".into()),
    }
}

const NAME: &str = "iceoryx2";

pub fn round_trips<P: Payload>() -> Vec<Contestant> {
    vec![Contestant::pair(NAME, Peer, iceoryx_round_trip::<P>)]
}

pub fn one_ways<P: Payload>() -> Vec<Contestant> {
    vec![Contestant::pair(NAME, Peer, iceoryx_one_way::<P>)]
}

/// Publish-subscribe is no queue: every subscriber gets every sample. With one of each it does the same job.
pub fn queues<P: Payload>(processes: usize) -> Vec<Contestant> {
    if processes == 2 { one_ways::<P>() } else { Vec::new() }
}
