//! One request to the HTTP API outside of any measurement, on a blocking connection of its own.
//!
//! Owns the connection for one request. Does not keep it, and measures nothing. Limits: `TIMEOUT`, `ANSWER_BYTES_MAX`.
//! Cost: one connection and some system calls a request, on the thread of the caller, which waits.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::app::App;
use crate::http;
use crate::stream::Stream;

const TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 16 << 20;

pub(crate) fn get(app: &App, path: &str, query: &[(&str, &str)]) -> io::Result<Value> {
    request(app, "GET", path, query, b"")
}

pub(crate) fn post(app: &App, path: &str, body: &Value) -> io::Result<Value> {
    request(app, "POST", path, &[], body.to_string().as_bytes())
}

fn request(
    app: &App,
    method: &str,
    path: &str,
    query: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Value> {
    let socket = TcpStream::connect_timeout(&app.api_address.into(), TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let mut stream = Stream::new(socket, app.tls)?;
    let mut request = Vec::new();
    let target = app.api(method, path, query, body);
    http::encode(
        method,
        &target,
        &app.api_address.to_string(),
        body,
        http::After::Keep,
        &mut request,
    );
    stream.write_all(&request)?;
    let mut bytes = Vec::new();
    let mut scratch = vec![0; 64 * 1024];
    let malformed = || io::Error::other("not an HTTP response");
    while bytes.len() < ANSWER_BYTES_MAX {
        let count = stream.read(&mut scratch)?;
        bytes.extend_from_slice(&scratch[..count]);
        let decoded = http::decode(&bytes, count == 0).map_err(|_| malformed())?;
        if let Some((response, _)) = decoded {
            if response.status != 200 {
                return Err(io::Error::other(format!("status {}", response.status)));
            }
            return serde_json::from_slice(response.body).map_err(io::Error::other);
        }
        if count == 0 {
            break;
        }
    }
    Err(malformed())
}
