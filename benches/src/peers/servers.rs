//! ipc-channel (typed and bytes) and interprocess (local sockets).

use super::kernel::Stream;
use crate::Result;
use crate::contest::Contestant;
use crate::contest::Kind::Peer;
use crate::drivers::{Rx, Side, Tx, one_way, round_trip};
use crate::payload::{Payload, zeroed};
use crate::rows::{Numbered, Record};
use crate::stage::Stage;
use interprocess::local_socket::prelude::*;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, Stream as LocalStream, ToFsName};
use ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

// ---- ipc-channel -----------------------------------------------------------------------------------------------------

/// What role 1 sends role 0 to begin with: the ends that role 0 uses.
type Ends<T, R> = (T, R);

/// Puts the server's name where role 1 finds it, and gives both roles their ends; role 1 makes the channels.
fn meet<T, R>(stage: &Stage, make: impl FnOnce() -> Result<(Ends<T, R>, Ends<T, R>)>) -> Result<Ends<T, R>>
where
    Ends<T, R>: Serialize + DeserializeOwned,
{
    let place = stage.scratch();
    if stage.role == 0 {
        let (server, name) = IpcOneShotServer::<Ends<T, R>>::new()?;
        // SAFETY: scratch memory that nobody reads before the barrier.
        unsafe {
            place.cast::<u64>().write(name.len() as u64);
            place.wrapping_add(8).copy_from_nonoverlapping(name.as_ptr(), name.len());
        }
        stage.barrier()?;
        let (_, ends) = server.accept()?;
        stage.barrier()?;
        return Ok(ends);
    }
    stage.barrier()?;
    // SAFETY: written before the barrier.
    let name = unsafe { std::slice::from_raw_parts(place.wrapping_add(8), place.cast::<u64>().read() as usize) };
    let (theirs, mine) = make()?;
    IpcSender::connect(String::from_utf8(name.to_vec())?)?.send(theirs)?;
    stage.barrier()?;
    Ok(mine)
}

struct BytesTx<P>(IpcBytesSender, Box<P>);
struct BytesRx(IpcBytesReceiver);

impl<P: Payload> Tx<P> for BytesTx<P> {
    fn send(&mut self, sequence: u64) -> Result {
        self.1.fill(sequence);
        Ok(self.0.send(shmkit::bytemuck::bytes_of(&*self.1))?)
    }
}

impl<P: Payload> Rx<P> for BytesRx {
    fn recv(&mut self) -> Result<u64> {
        let bytes = self.0.recv()?;
        Ok(match shmkit::bytemuck::try_from_bytes::<P>(&bytes) {
            Ok(payload) => payload.digest(),
            Err(_) => shmkit::bytemuck::pod_read_unaligned::<P>(&bytes).digest(),
        })
    }
}

fn ends(stage: &Stage) -> Result<Ends<IpcBytesSender, IpcBytesReceiver>> {
    meet(stage, || {
        let ((there_tx, there_rx), (back_tx, back_rx)) = (ipc::bytes_channel()?, ipc::bytes_channel()?);
        Ok(((there_tx, back_rx), (back_tx, there_rx)))
    })
}

fn ipc_round_trip<P: Payload>(stage: &Stage) -> Result {
    let (tx, rx) = ends(stage)?;
    round_trip::<P>(stage, &mut BytesTx(tx, zeroed()), &mut BytesRx(rx))
}

fn ipc_one_way<P: Payload>(stage: &Stage) -> Result {
    let (tx, rx) = ends(stage)?;
    match stage.role {
        0 => one_way::<P, _, BytesRx>(stage, Side::Sends(BytesTx(tx, zeroed()))),
        _ => one_way::<P, BytesTx<P>, _>(stage, Side::Receives(BytesRx(rx))),
    }
}

/// An end that role 1 or role 0 does not use is sent all the same.
#[derive(Serialize, Deserialize)]
enum Typed {
    Tx(IpcSender<Record>),
    Rx(IpcReceiver<Record>),
}

impl Tx<Numbered> for IpcSender<Record> {
    fn send(&mut self, sequence: u64) -> Result {
        Ok(IpcSender::send(self, Record::new(sequence))?)
    }
}

impl Rx<Numbered> for IpcReceiver<Record> {
    fn recv(&mut self) -> Result<u64> {
        Ok(IpcReceiver::recv(self)?.digest())
    }
}

fn ipc_records(stage: &Stage) -> Result {
    let (end, ()) = meet(stage, || {
        let (tx, rx) = ipc::channel()?;
        Ok(((Typed::Tx(tx), ()), (Typed::Rx(rx), ())))
    })?;
    match end {
        Typed::Tx(tx) => one_way::<Numbered, _, IpcReceiver<Record>>(stage, Side::Sends(tx)),
        Typed::Rx(rx) => one_way::<Numbered, IpcSender<Record>, _>(stage, Side::Receives(rx)),
    }
}

// ---- interprocess ----------------------------------------------------------------------------------------------------

fn local_socket(stage: &Stage) -> Result<LocalStream> {
    let path = format!("/tmp/{}.local", stage.name);
    let name = || path.as_str().to_fs_name::<GenericFilePath>();
    let listener = std::cell::Cell::new(None);
    let stream = stage.in_turn(
        || {
            listener.set(Some(ListenerOptions::new().name(name()?).create_sync()?));
            Ok(None)
        },
        || Ok(Some(LocalStream::connect(name()?)?)),
    )?;
    match (stream, listener.take()) {
        (Some(stream), _) => Ok(stream),
        (None, Some(listener)) => Ok(listener.accept()?),
        (None, None) => Err("there is no listener".into()),
    }
}

fn local_round_trip<P: Payload>(stage: &Stage) -> Result {
    let stream = local_socket(stage)?;
    round_trip::<P>(stage, &mut Stream::new(&stream), &mut Stream::new(&stream))
}

fn local_one_way<P: Payload>(stage: &Stage) -> Result {
    let stream = Stream::<P, _>::new(local_socket(stage)?);
    one_way::<P, _, _>(stage, if stage.role == 0 { Side::Sends(stream) } else { Side::Receives(stream) })
}

const IPC: &str = "ipc-channel";
const LOCAL: &str = "interprocess";

pub fn round_trips<P: Payload>() -> Vec<Contestant> {
    vec![Contestant::pair(IPC, Peer, ipc_round_trip::<P>), Contestant::pair(LOCAL, Peer, local_round_trip::<P>)]
}

pub fn one_ways<P: Payload>() -> Vec<Contestant> {
    vec![Contestant::pair(IPC, Peer, ipc_one_way::<P>), Contestant::pair(LOCAL, Peer, local_one_way::<P>)]
}

pub fn records() -> Vec<Contestant> {
    vec![Contestant::pair(IPC, Peer, ipc_records)]
}
