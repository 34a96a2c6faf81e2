//! `ferry top` on a terminal, as its user sees it.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::kubectl::{forward_to, with_kubectl};
use crate::support::{Port, Running, address, code, command, eventually, ferry, keygen, role, stderr, stdout};
use crate::tunnels::pair;

/// A program on a terminal of its own.
struct OnTerminal {
    child: Child,
    keys: File,
    /// The other end of it, which its settings are read from.
    terminal: File,
    screen: Arc<Mutex<vt100::Parser>>,
    cooked: LocalModes,
}

impl OnTerminal {
    fn start(command: &mut Command, (columns, rows): (u16, u16)) -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let name = ptsname(&keys, Vec::new()).unwrap().into_string().unwrap();
        let terminal = File::options().read(true).write(true).open(name).unwrap();
        let cooked = tcgetattr(&terminal).unwrap().local_modes;
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(rows), cells(columns), 0)));
        let end = || Stdio::from(OwnedFd::from(terminal.try_clone().unwrap()));
        let mut on_terminal = Self {
            child: command.stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm-256color").spawn().unwrap(),
            keys: File::from(keys),
            terminal,
            screen,
            cooked,
        };
        // Before the program looks, or after: it is told.
        on_terminal.resize((columns, rows));
        let (mut output, screen) = (on_terminal.keys.try_clone().unwrap(), Arc::clone(&on_terminal.screen));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                screen.lock().process(&bytes[..read]);
            }
        });
        on_terminal
    }

    fn resize(&mut self, (columns, rows): (u16, u16)) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        self.screen.lock().screen_mut().set_size(cells(rows), cells(columns));
        tcsetwinsize(&self.terminal, size).unwrap();
        // The kernel tells this only to those whose controlling terminal it is.
        self.signal(Signal::WINCH);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), signal).unwrap();
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    fn shown(&self) -> String {
        self.screen.lock().screen().contents()
    }

    /// Waits until all of these are shown, and returns the screen.
    fn shows(&self, parts: &[&str]) -> String {
        eventually(&format!("{parts:?} on the screen"), || {
            let shown = self.shown();
            parts.iter().all(|part| shown.contains(part)).then_some(shown)
        })
    }

    fn is_taken(&self) -> bool {
        self.screen.lock().screen().alternate_screen()
    }

    /// Waits for its end; the terminal is as it was before.
    fn ends(&mut self) -> i32 {
        let code = eventually("the end of it", || self.child.try_wait().unwrap()).code().unwrap();
        assert_eq!(tcgetattr(&self.terminal).unwrap().local_modes, self.cooked, "keys are not as before");
        eventually("the screen as before", || {
            let screen = self.screen.lock();
            (!screen.screen().alternate_screen() && !screen.screen().hide_cursor()).then_some(())
        });
        code
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap()
}

/// A tunnel alone, whose admin endpoint is here.
fn alone(dir: &Path, name: &str, admin: &str) -> (Running, SocketAddr) {
    let key = dir.join("identity.key");
    if !key.exists() {
        keygen(&key);
    }
    let file = dir.join("tunnel.yaml");
    fs::write(&file, format!("name: {name}\nidentity: identity.key\nadmin: {admin}\nkeeper: off\n")).unwrap();
    let (running, ready) = role(command(&["tunnel", "--config"]).arg(file));
    (running, address(&ready, "admin"))
}

fn top(admin: SocketAddr) -> Command {
    command(&["top".to_owned(), format!("http://{admin}")])
}

#[test]
fn a_real_tunnel_is_watched_on_a_terminal_of_any_size() {
    let dir = tempfile::tempdir().unwrap();
    let app = TcpListener::bind("127.0.0.1:0").unwrap();
    let near_yaml = dir.path().join("near.yaml");
    let [(near, _), far] = pair(dir.path(), &app);
    drop(near);
    fs::write(&near_yaml, fs::read_to_string(&near_yaml).unwrap() + "admin: 127.0.0.1:0\n").unwrap();
    let (_near, ready) = role(command(&["tunnel", "--config"]).arg(&near_yaml));
    let mut client = TcpStream::connect(address(&ready, "egress")).unwrap();
    let (mut served, _) = app.accept().unwrap();
    client.write_all(&[7; 5000]).unwrap();
    served.read_exact(&mut [0; 5000]).unwrap();

    let mut top = OnTerminal::start(&mut top(address(&ready, "admin")), (80, 24));
    top.shows(&[
        "near  ferry",
        "connected for",
        "nothing is wrong",
        "far",
        "reachable",
        "→ app",
        "1 session, by throughput",
    ]);
    top.press("r");
    top.shows(&["Events, all", "Session opened: app, far."]);
    top.resize((200, 60));
    top.shows(&["STATE", "over tcp", "RECEIVED/S", "5.0 kB"]);
    top.resize((80, 24));
    drop(far);
    top.shows(&["NOT REACHABLE", "no link", "Problems (2)", "1 session is without a link", "→ "]);
    assert!(top.is_taken());
    top.press("q");
    assert_eq!(top.ends(), 0);
}

#[test]
fn a_tunnel_that_is_away_is_told_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let port = Port::reserve();
    let admin = port.address();
    let mut top = OnTerminal::start(&mut top(admin), (80, 24));
    top.shows(&["NOT CONNECTED for", "no tunnel answers at"]);
    let (tunnel, _) = alone(dir.path(), "first", &admin.to_string());
    top.shows(&["first  ferry", "connected for", "The tunnel first is up."]);
    drop(tunnel);
    top.shows(&["NOT CONNECTED for", "first  ferry", "What is shown is from before."]);
    let (_tunnel, _) = alone(dir.path(), "second", &admin.to_string());
    top.shows(&["second  ferry", "The tunnel second is up."]);
    // Whatever ends it, the terminal is given back.
    top.signal(Signal::TERM);
    assert_eq!(top.ends(), 0);
}

#[test]
fn a_pod_is_watched_through_kubectl_which_is_started_again_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (_tunnel, admin) = alone(dir.path(), "pod", "127.0.0.1:0");
    forward_to(dir.path(), admin);
    let port = || fs::read_to_string(dir.path().join("port")).unwrap_or_default();
    let mut command = with_kubectl(dir.path(), &["top", "--pod", "deploy/initiator"]);
    let mut top = OnTerminal::start(&mut command, (100, 30));
    top.shows(&["pod  ferry", "connected for"]);
    let before = port();
    let kubectl = fs::read_to_string(dir.path().join("pid")).unwrap();
    kill_process(Pid::from_raw(kubectl.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    eventually("another port", || (port() != before && !port().is_empty()).then_some(()));
    top.shows(&["pod  ferry", " connected for"]);
    let last = port();
    top.press("\u{3}");
    assert_eq!(top.ends(), 0);
    eventually("the end of kubectl", || {
        TcpStream::connect(("127.0.0.1", last.parse().unwrap())).is_err().then_some(())
    });
}

#[test]
fn without_a_terminal_it_says_what_there_is_instead() {
    let output = ferry(&["top"]);
    assert_eq!(code(&output), 2);
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("ferry status"), "{}", stderr(&output));
}

#[test]
fn kubectl_that_fails_is_told_before_the_terminal_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(&["top", "--pod", "x"]);
    let mut top = OnTerminal::start(command.env("PATH", dir.path()), (80, 24));
    top.shows(&["cannot run kubectl"]);
    assert_eq!(top.ends(), 1);
}
