//! Asking a control plane.

use std::io::BufReader;

use serde_json::Value;
use ureq::Agent;

use super::Remote;
use crate::tls;

/// See the module.
pub(crate) struct Client {
    agent: Agent,
    server: String,
    /// The value of `authorization`; empty without a token.
    authorization: String,
}

impl Client {
    pub(crate) fn new(remote: &Remote) -> Result<Self, String> {
        let Remote { server, token_file, trust, json: _ } = remote;
        let authorization = match (token_file, std::env::var("OUTRIGGER_CONTROL_TOKEN")) {
            (Some(file), _) => {
                let token =
                    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
                format!("Bearer {}", token.trim())
            }
            (None, Ok(token)) => format!("Bearer {}", token.trim()),
            (None, Err(_)) => String::new(),
        };
        let tls = tls::client(trust.as_deref())?;
        let config = Agent::config_builder().http_status_as_error(false).tls_config(tls).build();
        Ok(Self { agent: config.into(), server: server.trim_end_matches('/').to_owned(), authorization })
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value, String> {
        self.parsed(path, &self.get_text(path)?)
    }

    pub(super) fn get_text(&self, path: &str) -> Result<String, String> {
        let request = self.agent.get(self.url(path)).header("authorization", &self.authorization);
        self.text(request.call())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let request = self.agent.post(self.url(path)).header("authorization", &self.authorization);
        self.parsed(path, &self.text(request.send_json(body))?)
    }

    /// Without a body. What is said of it, if anything is.
    pub(super) fn post_empty(&self, path: &str) -> Result<Option<Value>, String> {
        let request = self.agent.post(self.url(path)).header("authorization", &self.authorization);
        self.if_any(path, &self.text(request.send_empty())?)
    }

    /// What is said of it, if anything is.
    pub(super) fn delete(&self, path: &str) -> Result<Option<Value>, String> {
        let request = self.agent.delete(self.url(path)).header("authorization", &self.authorization);
        self.if_any(path, &self.text(request.call())?)
    }

    fn parsed(&self, path: &str, text: &str) -> Result<Value, String> {
        serde_json::from_str(text).map_err(|error| format!("{}{path}: {error}", self.server))
    }

    fn if_any(&self, path: &str, text: &str) -> Result<Option<Value>, String> {
        (!text.is_empty()).then(|| self.parsed(path, text)).transpose()
    }

    /// A body that goes on.
    pub(super) fn follow(&self, path: &str) -> Result<impl std::io::BufRead + use<>, String> {
        let request = self.agent.get(self.url(path)).header("authorization", &self.authorization);
        let answer = request.header("accept", "text/event-stream").call();
        let answer = answer.map_err(|error| self.away(&error))?;
        if answer.status().is_success() {
            return Ok(BufReader::new(answer.into_body().into_reader()));
        }
        self.text(Ok(answer)).and_then(|_| Err("the control plane does not answer with a stream".to_owned()))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    fn away(&self, error: &ureq::Error) -> String {
        format!("{} cannot be asked: {error}; is it running? `--server` says where it is", self.server)
    }

    fn text(&self, answer: Result<http::Response<ureq::Body>, ureq::Error>) -> Result<String, String> {
        let mut answer = answer.map_err(|error| self.away(&error))?;
        let status = answer.status();
        let text = answer.body_mut().read_to_string().map_err(|error| self.away(&error))?;
        if status.is_success() {
            return Ok(text);
        }
        let said = serde_json::from_str::<Value>(&text).ok();
        let said = said.as_ref().and_then(|said| said["error"].as_str()).unwrap_or(text.trim());
        let hint = if status == http::StatusCode::UNAUTHORIZED {
            "; `--token-file` names the file of a token (the first one stands in the store, as `admin.token`)"
        } else {
            ""
        };
        Err(format!("{said}{hint}"))
    }
}
