//! Both ends of the pipe: `src/channel/pipe/`.

use super::end::End;
use super::receiver::Receiver;
use super::sender::Sender;
use crate::error::{ChannelError, Error};
use crate::segment::Attachment;
use crate::segment::object::{Object, Reference};
use crate::sys::atomic::{AtomicU32, AtomicU64};
use crate::tests::explore;
use loom::cell::UnsafeCell;
use loom::thread;
use shmkit_layouts::objects::{END_USED, PipeBody, ROLE_FIRST, ROLE_SECOND};
use std::sync::Arc;

/// Elements the pipe has room for.
const CAPACITY: usize = 2;

/// A pipe in ordinary memory. Loom cannot watch the elements, which are plain bytes: beside each lies a cell that it watches,
/// which the tests touch when they touch the element.
struct Wire {
    body: PipeBody,
    elements: std::cell::UnsafeCell<[u64; CAPACITY]>,
    watched: [UnsafeCell<u64>; CAPACITY],
}

// SAFETY: what is no atomic is touched by the owner of the element only; loom checks that.
unsafe impl Sync for Wire {}
// SAFETY: as above.
unsafe impl Send for Wire {}

impl Wire {
    fn new() -> Arc<Wire> {
        let body = PipeBody {
            capacity: CAPACITY as u32,
            stride: 8,
            elements_offset: 0,
            reserved0: [0; 14],
            tail: AtomicU64::new(0),
            sender: AtomicU32::new(0),
            sender_state: AtomicU32::new(END_USED),
            reserved1: [0; 14],
            head: AtomicU64::new(0),
            receiver: AtomicU32::new(0),
            receiver_state: AtomicU32::new(END_USED),
            reserved2: [0; 14],
            not_empty: AtomicU32::new(0),
            receiver_left: AtomicU32::new(0),
            reserved3: Default::default(),
            not_full: AtomicU32::new(0),
            reserved4: Default::default(),
        };
        let watched = std::array::from_fn(|_| UnsafeCell::new(0));
        Arc::new(Wire { body, elements: std::cell::UnsafeCell::new([0; CAPACITY]), watched })
    }

    fn object(&self, role: u32, slot: u32) -> Object {
        let (body, elements) = (&raw const self.body, self.elements.get().cast());
        Object { reference: Reference { role }, attachment: Arc::new(Attachment::new(slot)), body, elements }
    }

    fn sender(&self, slot: u32) -> Sender<u64> {
        Sender { end: End::attach(self.object(ROLE_FIRST, slot)).unwrap() }
    }

    fn receiver(&self, slot: u32) -> Receiver<u64> {
        Receiver { end: End::attach(self.object(ROLE_SECOND, slot)).unwrap() }
    }

    /// Sends `value` as the element at `position`.
    fn send(&self, sender: &mut Sender<u64>, position: usize, value: u64) {
        let mut element = sender.loan().unwrap();
        // SAFETY: the element is the sender's until it is committed; loom checks that.
        self.watched[position % CAPACITY].with_mut(|watched| unsafe { *watched = value });
        *element = value;
        element.commit().unwrap();
    }

    /// Sends `value` if nobody else has the end; gives what was sent.
    fn send_if_free(&self, slot: u32, value: u64) -> u64 {
        let mut sender = self.sender(slot);
        if sender.loan().is_err() {
            return 0;
        }
        let position = self.body.tail.load(loom::sync::atomic::Ordering::Relaxed) as usize;
        self.send(&mut sender, position, value);
        value
    }

    /// Receives the element at `position`.
    fn receive(&self, receiver: &mut Receiver<u64>, position: usize) -> Result<u64, Error> {
        let element = receiver.recv_ref()?;
        // SAFETY: the element is the receiver's until the guard is dropped; loom checks that.
        let watched = self.watched[position % CAPACITY].with(|watched| unsafe { *watched });
        assert_eq!(*element, watched);
        Ok(*element)
    }
}

/// More elements than there is room for: each side waits for the other, and an element is overwritten only when it was read.
#[test]
fn elements_come_in_order_and_are_not_overwritten() {
    explore(2, || {
        let wire = Wire::new();
        let sends = thread::spawn({
            let wire = Arc::clone(&wire);
            move || {
                let mut sender = wire.sender(1);
                for position in 0..3 {
                    wire.send(&mut sender, position, position as u64 + 10);
                }
            }
        });
        let mut receiver = wire.receiver(2);
        for position in 0..3 {
            assert_eq!(wire.receive(&mut receiver, position).unwrap(), position as u64 + 10);
        }
        sends.join().unwrap();
    });
}

/// What was sent before the end was closed is received before the end of the file, which wakes who waits for more.
#[test]
fn the_end_of_the_file_comes_after_the_last_element() {
    explore(2, || {
        let wire = Wire::new();
        let sends = thread::spawn({
            let wire = Arc::clone(&wire);
            move || {
                let mut sender = wire.sender(1);
                wire.send(&mut sender, 0, 7);
                sender.close().unwrap();
            }
        });
        let mut receiver = wire.receiver(2);
        assert_eq!(wire.receive(&mut receiver, 0).unwrap(), 7);
        let end = wire.receive(&mut receiver, 1).unwrap_err();
        assert!(matches!(end, Error::Channel(ChannelError::EndOfFile)));
        sends.join().unwrap();
    });
}

/// A receiver that closes its end is missed by a sender that waits for room.
#[test]
fn a_sender_that_waits_for_room_sees_the_receiver_leave() {
    explore(2, || {
        let wire = Wire::new();
        let leaves = thread::spawn({
            let wire = Arc::clone(&wire);
            move || wire.receiver(2).close().unwrap()
        });
        let sender = wire.sender(1);
        let broken = (0..3).find_map(|value| sender.send(value).err()).expect("there is room for two");
        assert!(matches!(broken, Error::Channel(ChannelError::BrokenPipe)));
        leaves.join().unwrap();
    });
}

/// An end that is given back goes to the next with its position.
#[test]
fn the_next_owner_of_an_end_goes_on_where_the_last_one_was() {
    explore(3, || {
        let wire = Wire::new();
        let other = thread::spawn({
            let wire = Arc::clone(&wire);
            move || wire.send_if_free(1, 10)
        });
        let mut sent = wire.send_if_free(3, 20);
        sent += other.join().unwrap();
        let mut receiver = wire.receiver(2);
        let count = receiver.len().unwrap();
        let received: u64 = (0..count).map(|position| wire.receive(&mut receiver, position).unwrap()).sum();
        assert_eq!(received, sent);
        assert_ne!(sent, 0, "the end is free for one of them at least");
    });
}
