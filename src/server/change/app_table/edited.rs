//! What an edit has made of the table of apps.

/// What was done to an app.
pub(in crate::server::change) struct Edited {
    pub(in crate::server::change) id: String,
    pub(in crate::server::change) what: &'static str,
    pub(in crate::server::change) is_new: bool,
    pub(in crate::server::change) is_removed: bool,
    /// The secret of a new app.
    pub(in crate::server::change) secret: Option<String>,
}
