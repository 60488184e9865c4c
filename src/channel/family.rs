//! What every handle of a queue that puts, or gets, can do: written once for all of them.

/// Gives a handle with a `port` the methods that put messages of type `T`.
macro_rules! puts {
    ($handle:ident) => {
        impl<T: serde::Serialize> $handle<T> {
            /// Puts `value` into the queue, waiting while it is full.
            ///
            /// # Errors
            /// `Closed`, `ShutDown`; `Codec` if the value cannot be serialised; `OutOfMemory`, `TooLarge` for a long message.
            pub fn put(&self, value: T) -> $crate::Result<()> {
                self.port.put(&value, $crate::channel::port::Patience::ENDLESS)
            }

            /// Puts `value` into the queue if there is room at once.
            ///
            /// # Errors
            /// `Full`, and as `put`.
            pub fn try_put(&self, value: T) -> $crate::Result<()> {
                self.port.put(&value, $crate::channel::port::Patience::None)
            }

            /// Puts `value` into the queue, waiting at most for `timeout`.
            ///
            /// # Errors
            /// `Full` when the time is up, and as `put`.
            pub fn put_timeout(&self, value: T, timeout: std::time::Duration) -> $crate::Result<()> {
                self.port.put(&value, $crate::channel::port::Patience::timeout(timeout))
            }

            /// As `put`, of a value that the caller keeps.
            ///
            /// # Errors
            /// As `put`.
            pub fn put_ref(&self, value: &T) -> $crate::Result<()> {
                self.port.put(value, $crate::channel::port::Patience::ENDLESS)
            }

            /// As `try_put`, of a value that the caller keeps.
            ///
            /// # Errors
            /// As `try_put`.
            pub fn try_put_ref(&self, value: &T) -> $crate::Result<()> {
                self.port.put(value, $crate::channel::port::Patience::None)
            }

            /// As `put_timeout`, of a value that the caller keeps.
            ///
            /// # Errors
            /// As `put_timeout`.
            pub fn put_ref_timeout(&self, value: &T, timeout: std::time::Duration) -> $crate::Result<()> {
                self.port.put(value, $crate::channel::port::Patience::timeout(timeout))
            }

            /// Puts all `values`, in order, waiting while the queue is full. Faster than one by one. They arrive in order, but
            /// others' may arrive between them.
            ///
            /// # Errors
            /// As `put`; some of the values may have been put.
            pub fn put_many(&self, values: impl IntoIterator<Item = T>) -> $crate::Result<()> {
                self.port.put_many(values)
            }
        }
    };
}
pub(super) use puts;

/// Gives a handle with a `port` and a `receive` the methods that get messages of type `T`.
macro_rules! gets {
    ($handle:ident) => {
        impl<T: serde::de::DeserializeOwned> $handle<T> {
            fn get_with(
                &self,
                patience: $crate::channel::port::Patience,
            ) -> $crate::Result<$crate::channel::Message<T>> {
                let claimed = self.port.take(patience)?;
                Ok($crate::channel::Message { value: self.receive(claimed)?, redelivered: claimed.deliveries() })
            }

            /// The next message, waiting while there is none.
            ///
            /// # Errors
            /// `EndOfFile` when the queue is at its end: closed, or without producers, and empty. `ShutDown`. `Codec` if the
            /// message is no `T`: it is gone then.
            pub fn get(&self) -> $crate::Result<T> {
                Ok(self.get_with($crate::channel::port::Patience::ENDLESS)?.value)
            }

            /// The next message if there is one at once.
            ///
            /// # Errors
            /// `Empty`, and as `get`.
            pub fn try_get(&self) -> $crate::Result<T> {
                Ok(self.get_with($crate::channel::port::Patience::None)?.value)
            }

            /// The next message, waiting at most for `timeout`.
            ///
            /// # Errors
            /// `Empty` when the time is up, and as `get`.
            pub fn get_timeout(&self, timeout: std::time::Duration) -> $crate::Result<T> {
                Ok(self.get_with($crate::channel::port::Patience::timeout(timeout))?.value)
            }

            /// The next message and what is known of its way, waiting while there is none.
            ///
            /// # Errors
            /// As `get`.
            pub fn get_message(&self) -> $crate::Result<$crate::channel::Message<T>> {
                self.get_with($crate::channel::port::Patience::ENDLESS)
            }

            /// The next message and what is known of its way, waiting at most for `timeout`.
            ///
            /// # Errors
            /// As `get_timeout`.
            pub fn get_message_timeout(
                &self,
                timeout: std::time::Duration,
            ) -> $crate::Result<$crate::channel::Message<T>> {
                self.get_with($crate::channel::port::Patience::timeout(timeout))
            }

            /// The next messages, up to `most`: those that are there, waiting only for the first. Each has its own outcome,
            /// since each may be no `T`. Faster than one by one.
            ///
            /// # Errors
            /// `EndOfFile` when the queue is at its end; `ShutDown`.
            pub fn get_many(&self, most: usize) -> $crate::Result<Vec<$crate::Result<T>>> {
                let taken = self.port.take_many(most, $crate::channel::port::Patience::ENDLESS)?;
                Ok(taken.into_iter().map(|claimed| self.receive(claimed)).collect())
            }

            /// The messages as they come, until the queue is at its end.
            pub fn iter(&self) -> impl Iterator<Item = $crate::Result<T>> {
                std::iter::from_fn(move || match self.get() {
                    Err($crate::Error::Channel($crate::ChannelError::EndOfFile)) => None,
                    got => Some(got),
                })
            }
        }
    };
}
pub(super) use gets;

/// Gives a handle with a `port` what every handle of a queue can tell.
macro_rules! tells {
    ($handle:ident $name:literal $(, $also:ident)*) => {
        impl<T> $handle<T> {
            /// How many messages it can hold.
            pub fn capacity(&self) -> usize {
                self.port.ring.capacity()
            }

            /// How many messages are in it, exactly, at this instant: Python's `qsize`. What somebody has got and a death will
            /// give back is not.
            pub fn len(&self) -> usize {
                self.port.ring.len()
            }

            /// Whether there is nothing in it at this instant.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Whether it is full at this instant.
            pub fn is_full(&self) -> bool {
                !self.port.ring.has_room()
            }

            /// Closes it for everybody: nothing more is put; what is in it is still received, then comes the end.
            pub fn close(&self) {
                self.port.ring.close();
            }

            /// Closes it for everybody. With `immediate` nothing more is got, either: what is in it is thrown away, and everybody
            /// who puts or gets, or waits to, is told `ShutDown`. Without, it is `close`.
            ///
            /// # Errors
            /// `Corrupt`.
            pub fn shutdown(&self, immediate: bool) -> $crate::Result<()> {
                self.port.shut_down(immediate)
            }

            /// Whether somebody has closed it.
            pub fn is_closed(&self) -> bool {
                self.port.ring.is_closed()
            }
        }

        impl<T> Clone for $handle<T> {
            fn clone(&self) -> Self {
                $handle { port: self.port.clone(), $($also: self.$also.clone(),)* _messages: std::marker::PhantomData }
            }
        }

        impl<T> std::fmt::Debug for $handle<T> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!($name, "({} of {})"), self.len(), self.capacity())
            }
        }
    };
}
pub(super) use tells;
