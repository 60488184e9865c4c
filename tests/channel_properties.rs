//! Queues against what they should be: a `VecDeque` with a capacity. Proptest prints the seed of what fails.

use proptest::prelude::*;
use shmkit::{ChannelError, Error, PodQueue, Queue, Segment};
use std::collections::VecDeque;

#[derive(Debug, Clone)]
enum Step {
    Put(usize),
    PutMany(Vec<usize>),
    Get,
    GetMany(usize),
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Around the length that fits a block, and far beyond it.
    let length = prop_oneof![0..300usize, Just(5000)];
    let step = prop_oneof![
        6 => length.clone().prop_map(Step::Put),
        2 => prop::collection::vec(length, 0..6).prop_map(Step::PutMany),
        6 => Just(Step::Get),
        2 => (0..6usize).prop_map(Step::GetMany),
        1 => Just(Step::Close),
    ];
    // Most of the time open, else nothing happens.
    prop::collection::vec(step, 0..120).prop_map(|mut steps| {
        let close = steps.len() * 3 / 4;
        let mut index = 0;
        steps.retain(|step| {
            index += 1;
            index > close || !matches!(step, Step::Close)
        });
        steps
    })
}

fn error<T: std::fmt::Debug>(outcome: shmkit::Result<T>) -> ChannelError {
    match outcome {
        Err(Error::Channel(error)) => error,
        other => panic!("{other:?} is no channel error"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_queue_is_a_deque_with_a_capacity(capacity in 1..9usize, steps in steps()) {
        let segment = Segment::anonymous().unwrap();
        let queue = Queue::<(u32, String)>::bounded_in(&segment, capacity).unwrap();
        let other = queue.clone();
        let empty = segment.memory().unwrap().0;
        let mut model = VecDeque::new();
        let mut closed = false;
        let mut next = 0;
        let mut message = |len: usize| {
            next += 1;
            (next, "x".repeat(len))
        };
        for step in steps {
            match step {
                Step::Put(len) => {
                    let message = message(len);
                    let outcome = queue.try_put_ref(&message);
                    if closed {
                        prop_assert_eq!(error(outcome), ChannelError::Closed { what: "queue" });
                    } else if model.len() == capacity {
                        prop_assert_eq!(error(outcome), ChannelError::Full { what: "queue" });
                    } else {
                        prop_assert!(outcome.is_ok());
                        model.push_back(message);
                    }
                }
                Step::PutMany(lengths) => {
                    // More than there is room for would wait.
                    let batch: Vec<_> = lengths.into_iter().take(capacity - model.len()).map(&mut message).collect();
                    let outcome = queue.put_many(batch.clone());
                    if closed && !batch.is_empty() {
                        prop_assert_eq!(error(outcome), ChannelError::Closed { what: "queue" });
                    } else {
                        prop_assert!(outcome.is_ok());
                        model.extend(batch);
                    }
                }
                Step::Get => match model.pop_front() {
                    Some(message) => prop_assert_eq!(other.try_get().unwrap(), message),
                    None if closed => prop_assert_eq!(error(other.try_get()), ChannelError::EndOfFile),
                    None => prop_assert_eq!(error(other.try_get()), ChannelError::Empty { what: "queue" }),
                },
                Step::GetMany(most) => {
                    if !model.is_empty() || most == 0 {
                        let got: shmkit::Result<Vec<_>> = other.get_many(most).unwrap().into_iter().collect();
                        let expected: Vec<_> = model.drain(..most.min(model.len())).collect();
                        prop_assert_eq!(got.unwrap(), expected);
                    }
                }
                Step::Close => {
                    queue.close();
                    closed = true;
                }
            }
            prop_assert_eq!(other.len(), model.len());
            prop_assert_eq!(other.is_empty(), model.is_empty());
            prop_assert_eq!(other.is_full(), model.len() == capacity);
            prop_assert_eq!(other.is_closed(), closed);
        }
        segment.verify().unwrap();
        for message in model {
            prop_assert_eq!(other.try_get().unwrap(), message);
        }
        prop_assert_eq!(segment.memory().unwrap().0, empty);
    }

    #[test]
    fn loans_and_received_elements_take_blocks(
        capacity in 1..5usize,
        loans in 1..4usize,
        steps in prop::collection::vec(0..6u8, 0..200),
    ) {
        let segment = Segment::anonymous().unwrap();
        let queue: PodQueue<u64> = {
            let name = "queue";
            segment.pod_queue(name).capacity(capacity).loans(loans).create().unwrap()
        };
        let mut model = VecDeque::new();
        let (mut loaned, mut received) = (VecDeque::new(), VecDeque::new());
        for (number, step) in steps.into_iter().enumerate() {
            let number = number as u64;
            let in_use = model.len() + loaned.len() + received.len();
            match step {
                0 | 1 => match queue.try_loan() {
                    Ok(mut loan) => {
                        prop_assert!(in_use < capacity + loans);
                        *loan = number;
                        loaned.push_back((number, loan));
                    }
                    Err(_) => prop_assert_eq!(in_use, capacity + loans),
                },
                2 => {
                    if let Some((number, loan)) = loaned.pop_front() {
                        match loan.try_commit() {
                            Ok(()) => {
                                prop_assert!(model.len() < capacity);
                                model.push_back(number);
                            }
                            Err((loan, _)) => {
                                prop_assert_eq!(model.len(), capacity);
                                loaned.push_front((number, loan));
                            }
                        }
                    }
                }
                3 => drop(loaned.pop_front()),
                4 => match model.pop_front() {
                    Some(number) => {
                        let element = queue.try_recv().unwrap();
                        prop_assert_eq!(*element, number);
                        received.push_back((number, element));
                    }
                    None => prop_assert!(queue.try_recv().is_err()),
                },
                _ => drop(received.pop_front()),
            }
            prop_assert!(received.iter().all(|(number, element)| **element == *number));
            prop_assert!(loaned.iter().all(|(number, loan)| **loan == *number));
            prop_assert_eq!(queue.len(), model.len());
        }
    }
}
