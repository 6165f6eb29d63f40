//! A network of the test's own: addresses that nobody else has, and a firewall that redirects. Nothing in it reaches the
//! machine, and nothing is left of it.
//!
//! It takes root, and a kernel that can redirect. Whoever has no such kernel cannot be helped by installing a program, so that
//! this is said, and is no failure even where all programs are to be there.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::peer::{peer, skip};

/// See the module.
#[derive(Debug)]
pub struct Network {
    /// It is there for as long as this is.
    holder: Child,
}

impl Network {
    /// One with these addresses and these rules (of `nft`). `None`, and a line that says why, where there can be none.
    pub fn new(addresses: &[&str], rules: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip("only root can make a network");
            return None;
        }
        let (nft, ip, unshare) = (peer("nft")?, peer("ip")?, peer("unshare")?);
        let mut script = format!("set -e\nexec 2>&1\n{} link set lo up\n", ip.path().display());
        for address in addresses {
            // Nobody else could have it, so that nobody is asked.
            let nodad = if address.contains(':') { " nodad" } else { "" };
            script += &format!("{} address add {address} dev lo{nodad}\n", ip.path().display());
        }
        script +=
            &format!("{} -f - <<'RULES'\n{rules}\nRULES\necho ready\nexec sleep 600\n", nft.path().display());
        let mut command = Command::new(unshare.path());
        command.args(["--net", "sh"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().unwrap();
        // Who may make no network has ended by now, and has said why.
        let _ = holder.stdin.take().unwrap().write_all(script.as_bytes());
        let mut said = BufReader::new(holder.stdout.take().unwrap());
        let mut first = String::new();
        said.read_line(&mut first).unwrap();
        let network = Self { holder };
        if first == "ready\n" {
            return Some(network);
        }
        said.read_to_string(&mut first).unwrap();
        let _ = writeln!(std::io::stderr(), "SKIPPED: this kernel makes no network that redirects:\n{first}");
        None
    }

    /// Does this in it, on a thread of its own: what is started there is in it too.
    pub fn run<F: Future<Output = ()>>(&self, work: impl FnOnce() -> F + Send) {
        let there = File::open(format!("/proc/{}/ns/net", self.holder.id())).unwrap();
        let done = std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(work());
            });
            thread.join()
        });
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
