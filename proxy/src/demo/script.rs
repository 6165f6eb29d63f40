//! The configuration that the demonstration runs: a file for a newcomer to read and to change.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::echo::Service;

/// The file in a directory of its own; both are gone when this value is.
#[derive(Debug)]
pub(super) struct Script {
    directory: PathBuf,
    file: PathBuf,
}

impl Script {
    /// Writes it.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn write(services: &[Service]) -> io::Result<Self> {
        let name = format!("outrigger-demo-{:012x}", fastrand::u64(..1 << 48));
        let directory = std::env::temp_dir().join(name);
        // Fails if it is there already: in a directory that all may write to, it could be someone else's.
        fs::DirBuilder::new().mode(0o700).create(&directory)?;
        let script = Self { file: directory.join("outrigger.yaml"), directory };
        fs::write(&script.file, text(services))?;
        Ok(script)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.file
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::warn!(directory = %self.directory.display(), %error, "cannot be removed");
        }
    }
}

fn text(services: &[Service]) -> String {
    let endpoint = |service: &Service| {
        let slow = if service.delay.is_zero() {
            String::new()
        } else {
            format!(", {} ms slower", service.delay.as_millis())
        };
        format!("      - {:<24} # {}{slow}\n", service.address, service.name)
    };
    let endpoints: String = services.iter().map(endpoint).collect();
    format!("{ABOVE}{endpoints}")
}

const ABOVE: &str = "\
# What `outrigger demo` runs. Change it and save: the change takes effect within a second, and no request is lost.
# A mistake changes nothing: the last good configuration stays, and you are told what is wrong, and where.
# `outrigger check --effective FILE` prints it with every default; `outrigger run FILE` runs a file of your own.

admin: 127.0.0.1:0               # metrics, health and state; port 0 is any that is free
shutdown: { deadline: 5s }       # what Ctrl-C grants to requests in flight

listeners:
  web:
    bind: 127.0.0.1:0
    routes:                      # the first that matches takes the request
      # - match: { path: { exact: /teapot } }
      #   respond: { status: 418, body: \"short and stout\\n\" }
      - to: echo

clusters:
  echo:
    balance: peak-ewma           # least-request, round-robin or random: try one, and watch the shares
    protocol: http1              # what the services speak; you may come with HTTP/2
    endpoints:                   # take one out; or let one have more: { address: HOST:PORT, weight: 3 }
";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outrigger_proto::model::{Action, Filter, Name};
    use outrigger_proto::yaml::{self, Parsed};

    use super::*;

    fn services() -> Vec<Service> {
        let service = |(name, port, delay)| Service {
            name,
            address: ([127, 0, 0, 1], port).into(),
            delay: Duration::from_millis(delay),
        };
        [("alpha", 9001, 0), ("beta", 9002, 0), ("gamma", 9003, 5)].map(service).into()
    }

    #[track_caller]
    fn check(text: &str, routes: usize) {
        let source = yaml::Source { name: "demo", text, base: Path::new(""), env: &|_| None };
        let Parsed { config, warnings } = yaml::parse(&source).unwrap();
        assert_eq!(warnings, []);
        let echo: Name = Name::new("echo").unwrap();
        assert_eq!(config.endpoints[&echo].endpoints.len(), 3);
        let Filter::Http(http) =
            &config.mesh.listeners.values().next().unwrap().chains.only().unwrap().filter
        else {
            panic!()
        };
        let routes_in_force = &config.mesh.route_tables[&http.routes].routes;
        assert_eq!(routes_in_force.len(), routes);
        assert!(matches!(routes_in_force.last().unwrap().action, Action::Forward(_)));
    }

    #[test]
    fn the_file_is_right_as_it_is_written() {
        let text = text(&services());
        check(&text, 1);
        assert!(text.ends_with("127.0.0.1:9003           # gamma, 5 ms slower\n"), "{text}");
    }

    #[test]
    fn the_file_is_right_with_what_it_invites_to_try() {
        let text = text(&services());
        check(&text.replace("      # - ", "      - ").replace("      #   ", "        "), 2);
        check(&text.replace("127.0.0.1:9003 ", "{ address: 127.0.0.1:9003, weight: 3 }"), 1);
        for balance in ["least-request", "round-robin", "random"] {
            check(&text.replace("peak-ewma", balance), 1);
        }
    }

    #[test]
    fn the_file_goes_with_its_directory() {
        let script = Script::write(&services()).unwrap();
        let directory = script.path().parent().unwrap().to_owned();
        assert!(script.path().exists());
        drop(script);
        assert!(!directory.exists());
    }
}
