//! A bad line between a worker and the coordinators: it loses, delays and doubles requests.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// What a line does to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    Good = 0,
    /// Every second request never arrives, of the others the answer is lost.
    Loses = 1,
    /// Everything takes a while.
    Delays = 2,
    /// A request arrives twice; the first answer is taken.
    Doubles = 3,
}

/// A line to whichever coordinator takes the connection.
#[derive(Debug, Clone)]
pub struct Wire {
    pub port: u16,
    mood: Arc<AtomicU8>,
    requests: Arc<AtomicU64>,
}

impl Wire {
    /// Listens until the test ends.
    pub fn to(ports: Vec<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let wire = Self {
            port: listener.local_addr().expect("its port").port(),
            mood: Arc::default(),
            requests: Arc::default(),
        };
        let shared = wire.clone();
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                let (wire, ports) = (shared.clone(), ports.clone());
                // A line that breaks is part of the game.
                thread::spawn(move || wire.carry(caller, &ports));
            }
        });
        wire
    }

    pub fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// One request and its answer; then the connection is closed.
    fn carry(&self, mut caller: TcpStream, ports: &[u16]) -> Option<()> {
        let request = request(&mut caller)?;
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let mood = self.mood.load(Ordering::SeqCst);
        let is = |wanted: Mood| mood == wanted as u8;
        if is(Mood::Loses) && number.is_multiple_of(2) {
            return None;
        }
        if is(Mood::Delays) {
            thread::sleep(Duration::from_millis(700));
        }
        let mut line = connect(ports)?;
        line.write_all(&request).ok()?;
        if is(Mood::Doubles) {
            let mut twin = connect(ports)?;
            twin.write_all(&request).ok()?;
            thread::spawn(move || twin.read_to_end(&mut Vec::new()));
        }
        if is(Mood::Loses) {
            let _ = line.read_to_end(&mut Vec::new());
            return None;
        }
        std::io::copy(&mut line, &mut caller).ok()?;
        Some(())
    }
}

fn connect(ports: &[u16]) -> Option<TcpStream> {
    ports
        .iter()
        .find_map(|port| TcpStream::connect(("127.0.0.1", *port)).ok())
}

/// A whole request, changed so that its connection ends with the answer.
fn request(caller: &mut TcpStream) -> Option<Vec<u8>> {
    let mut reader = BufReader::new(caller);
    let mut head = Vec::new();
    let mut length = 0;
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 0 {
        let lower = line.to_ascii_lowercase();
        if let Some(text) = lower.strip_prefix("content-length:") {
            length = text.trim().parse().ok()?;
        }
        if line == "\r\n" {
            head.extend(b"Connection: close\r\n\r\n");
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            head.extend(body);
            return Some(head);
        }
        if !lower.starts_with("connection:") {
            head.extend(line.as_bytes());
        }
        line.clear();
    }
    None
}
