//! The console: a page, its style and its scripts, which are part of the program. They come from nowhere else, so the
//! console works without a network.
//!
//! Owns no state. The files have nothing of a server, and are sent to everyone who can connect. What the page shows it
//! reads from `/api/`, with the token that the operator enters. The policy allows the browser nothing else than these
//! files and requests to this listener, so that hostile text in a channel name could not run even if the script did not
//! escape it. Does not know requests (`routes.rs`). Output: one of the files, or none.
//! No limits: the files are constants. Cost: a comparison of the path; the bytes are static and are not copied here.

use crate::http1::response::ContentType;

pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for \
    'script'";

/// `is_page`: the request wants HTML, as a browser does; for other clients `/` is a list of paths.
pub(super) fn file(path: &str, is_page: bool) -> Option<(ContentType, &'static str)> {
    match path {
        "/" if is_page => Some((ContentType::Html, include_str!("console/index.html"))),
        "/console.css" => Some((ContentType::Css, include_str!("console/console.css"))),
        _ => script(path).map(|script| (ContentType::JavaScript, script)),
    }
}

/// One for each module that `console.js` imports, directly or not.
fn script(path: &str) -> Option<&'static str> {
    Some(match path {
        "/console.js" => include_str!("console/console.js"),
        "/page.js" => include_str!("console/page.js"),
        "/server.js" => include_str!("console/server.js"),
        "/widgets.js" => include_str!("console/widgets.js"),
        "/header.js" => include_str!("console/header.js"),
        "/overview.js" => include_str!("console/overview.js"),
        "/channels.js" => include_str!("console/channels.js"),
        "/connections.js" => include_str!("console/connections.js"),
        "/events.js" => include_str!("console/events.js"),
        _ => return None,
    })
}
