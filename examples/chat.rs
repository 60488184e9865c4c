//! A chat between processes that know nothing of each other but a name.
//!
//! `cargo run --release --example chat -- serve [--name NAME] [--key KEY]`, and in other terminals
//! `cargo run --release --example chat -- join NICKNAME [--name NAME] [--key KEY]`: what one says, all others see.
//! Without arguments it opens a room, sends two guests in, and shows what each of them saw.
//!
//! Whoever leaves, by the end of his input or by `kill -9`, is seen to have left. Nothing is left in /dev/shm when the
//! last one is gone.

use serde::{Deserialize, Serialize};
use shmkit::{ChannelError, Client, Connection, Error, Listener};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// What goes over a connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Line {
    /// The first line of a guest: who he is.
    Hello(String),
    /// Said by a guest; shown to the others with his name before it.
    Says(String),
    /// Said by the room.
    Notice(String),
    /// The last line of a guest, and of the room to him.
    Bye,
}

struct Options {
    name: String,
    key: Option<String>,
}

// ---- the room ------------------------------------------------------------------------------------------------------------

/// Who is in the room: by the number of his connection.
#[derive(Default)]
struct Room {
    guests: Mutex<BTreeMap<u64, (String, Connection)>>,
}

impl Room {
    /// Shows a line to everybody but `from`. One who has gone is removed by his own thread; one who is stopped, and has 64
    /// lines unread, misses it: he does not hold up the others.
    fn show(&self, from: u64, line: &Line) {
        for (_, (_, connection)) in self.guests.lock().unwrap().iter().filter(|&(&number, _)| number != from) {
            let _ = connection.try_send(line);
        }
    }

    /// Talks with one guest until he has gone.
    fn host(&self, number: u64, connection: Connection) {
        let pid = connection.peers().first().map_or(0, |peer| peer.pid);
        let Ok(Line::Hello(nickname)) = connection.recv() else { return };
        {
            let mut guests = self.guests.lock().unwrap();
            let others: Vec<_> = guests.values().map(|(nickname, _)| nickname.clone()).collect();
            let _ = connection.send(&Line::Notice(format!("welcome; here are: [{}]", others.join(", "))));
            guests.insert(number, (nickname.clone(), connection.clone()));
        }
        println!("{nickname} (process {pid}) has come");
        self.show(number, &Line::Notice(format!("{nickname} has come")));
        loop {
            match connection.recv() {
                Ok(Line::Says(text)) => self.show(number, &Line::Says(format!("{nickname}: {text}"))),
                Ok(Line::Bye) => {
                    let _ = connection.try_send(&Line::Bye);
                    break;
                }
                _ => break,
            }
        }
        self.guests.lock().unwrap().remove(&number);
        println!("{nickname} (process {pid}) has left");
        self.show(number, &Line::Notice(format!("{nickname} has left")));
    }
}

fn serve(options: &Options) -> shmkit::Result<()> {
    let mut builder = Listener::builder(&options.name);
    if let Some(key) = &options.key {
        builder = builder.authkey(key);
    }
    let listener = builder.bind()?;
    println!("the room {:?} is open", listener.name());
    let room = Room::default();
    thread::scope(|scope| {
        for number in 0.. {
            match listener.accept() {
                Ok(connection) => {
                    let room = &room;
                    scope.spawn(move || room.host(number, connection));
                }
                Err(Error::Channel(ChannelError::Authentication { why })) => {
                    println!("somebody was turned away: {why}")
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })
}

// ---- a guest --------------------------------------------------------------------------------------------------------------

fn join(nickname: &str, options: &Options) -> shmkit::Result<()> {
    let mut builder = Client::builder(&options.name);
    if let Some(key) = &options.key {
        builder = builder.authkey(key);
    }
    let connection = builder.connect()?;
    connection.send(&Line::Hello(nickname.to_owned()))?;
    // Another thread waits for input, for ever perhaps: it must not keep the connection when the room has gone.
    let shared = Arc::new(Mutex::new(Some(connection.clone())));
    let input = Arc::clone(&shared);
    thread::spawn(move || {
        let lines = std::io::stdin().lines().map_while(Result::ok).map(Line::Says);
        for line in lines.chain([Line::Bye]) {
            let Some(connection) = &*input.lock().unwrap() else { return };
            let _ = connection.send(&line);
        }
    });
    loop {
        match connection.recv() {
            Ok(Line::Says(text)) => println!("{text}"),
            Ok(Line::Notice(text)) => println!("* {text}"),
            Ok(Line::Hello(_)) => {}
            Ok(Line::Bye) => break,
            Err(_) => {
                println!("* the room is closed");
                break;
            }
        }
    }
    shared.lock().unwrap().take();
    Ok(())
}

// ---- on its own -----------------------------------------------------------------------------------------------------------

/// A process of this program that can be talked to.
struct Part {
    child: std::process::Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Part {
    fn start(arguments: &[&str]) -> shmkit::Result<Part> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Ok(Part { child, output })
    }

    /// Waits until it shows `wanted`, and shows that.
    fn see(&mut self, who: &str, wanted: &str) -> shmkit::Result<()> {
        for line in self.output.by_ref().lines() {
            let line = line?;
            println!("{who:>6} | {line}");
            if line.contains(wanted) {
                return Ok(());
            }
        }
        Err(Error::Other(format!("{who} did not see {wanted:?}")))
    }

    fn say(&mut self, text: &str) -> shmkit::Result<()> {
        Ok(writeln!(self.child.stdin.as_mut().expect("piped"), "{text}")?)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn demonstrate() -> shmkit::Result<()> {
    let name = format!("chat-{}", std::process::id());
    let mut room = Part::start(&["serve", "--name", &name, "--key", "open sesame"])?;
    room.see("room", "is open")?;
    let mut ada = Part::start(&["join", "Ada", "--name", &name, "--key", "open sesame"])?;
    ada.see("Ada", "welcome")?;
    let mut bob = Part::start(&["join", "Bob", "--name", &name, "--key", "open sesame"])?;
    ada.see("Ada", "Bob has come")?;
    bob.see("Bob", "here are: [Ada]")?;
    ada.say("hello, Bob")?;
    bob.see("Bob", "Ada: hello, Bob")?;
    bob.say("hello, Ada")?;
    ada.see("Ada", "Bob: hello, Ada")?;
    // A wrong key; a kill; and the end of the room.
    drop(Part::start(&["join", "Eve", "--name", &name, "--key", "open sesamf"])?);
    bob.child.kill()?;
    ada.see("Ada", "Bob has left")?;
    room.child.kill()?;
    ada.see("Ada", "the room is closed")?;
    // She is the last one, and takes the segment along.
    ada.child.wait()?;
    println!("chat: all was said and seen");
    Ok(())
}

fn run(arguments: &[String]) -> shmkit::Result<()> {
    let mut options = Options { name: "chat".to_owned(), key: None };
    let mut words = Vec::new();
    let mut rest = arguments.iter();
    let missing = |what: &str| Error::Other(format!("{what} needs a value"));
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--name" => options.name = rest.next().ok_or_else(|| missing("--name"))?.clone(),
            "--key" => options.key = Some(rest.next().ok_or_else(|| missing("--key"))?.clone()),
            word => words.push(word),
        }
    }
    match words[..] {
        [] => demonstrate(),
        ["serve"] => serve(&options),
        ["join", nickname] => join(nickname, &options),
        _ => Err(Error::Other("usage: chat [serve | join NICKNAME] [--name NAME] [--key KEY]".to_owned())),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: {error}");
            ExitCode::FAILURE
        }
    }
}
