//! Users as this core sees them: which of its connections are signed in, and which users each watches (docs/PROTOCOL.md
//! C6). PURE.
//!
//! Owns the users of its connections; does not know connections of other cores. The core sends a user's home its first
//! and last sign-in of the user, and its first and last watcher, so that each number is kept where the connections are.
//! The home answers with the user's status (`home/users.rs`). A connection is sent its whole watchlist once all homes
//! have answered, and changes from then on.
//!
//! Limits: `WATCHLIST_MAX` users for each connection, charged to it. Cost: a few steps (one hash look-up) for a sign-in
//! or a sign-out, and one mail to the user's home for the first and the last; a status change is one frame for each
//! connection that watches.

use crate::shard::context::Context;
use crate::shard::outbox::{Observation, Outbox};
use crate::slot::Slot;
use hashbrown::HashMap;
use indexmap::IndexSet;

use super::Local;
use super::connection::{ConnectionKey, Extras, SignedIn};
use super::memory::user_charge;
use super::refuse::Denial;
use crate::cause::{Cause, Detail};
use crate::pusher::channel_name::USER_CHANNEL_PREFIX;
use crate::pusher::error_code;
use crate::pusher::inbound::{Auth, SignIn, User, WATCHLIST_MAX};
use crate::pusher::outbound;
use crate::pusher::signature;
use crate::shard::channel_key::ChannelKey;
use crate::shard::mail::Mail;
use crate::ws::frame;

/// What was refused, in a line of the log or an answer.
const SIGN_IN: Detail<'_> = Detail::Own("sign-in");

type UserMap<T> = HashMap<ChannelKey, T, foldhash::fast::FixedState>;

/// By the user's own channel.
#[derive(Debug, Default)]
pub(in crate::shard) struct UserTable(UserMap<LocalUser>);

/// Dropped when the user has neither connections nor watchers here.
#[derive(Debug, Default)]
struct LocalUser {
    /// How many connections of this core are signed in as the user.
    connections: u32,
    /// Connections that watch the user. An index set, because a status change walks over it.
    watchers: IndexSet<Slot, foldhash::fast::FixedState>,
    /// Whether the user is online; `None` until the home has answered. Kept up to date while there are watchers.
    online: Option<bool>,
}

impl LocalUser {
    fn is_unused(&self) -> bool {
        self.connections == 0 && self.watchers.is_empty()
    }
}

/// A sign-in that is within all limits: what it is charged, and what the one before was.
struct AcceptedUser<'a> {
    user: &'a User,
    channel: ChannelKey,
    charge: u32,
    charged_bytes: u32,
}

impl UserTable {
    /// `None` also for a user whose home has not answered yet.
    pub(super) fn is_online(&self, user: &ChannelKey) -> Option<bool> {
        self.0.get(user)?.online
    }

    /// Sends the home nothing: `Local::finish_import` does, once for all connections.
    pub(super) fn import_signed_in(&mut self, user: &ChannelKey) {
        debug_assert!(user.name().starts_with(USER_CHANNEL_PREFIX), "a user's own channel");
        self.0.entry(user.clone()).or_default().connections += 1;
    }

    /// As `import_signed_in`. `online`: as the other process knew it, so that no home has to be asked.
    pub(super) fn import_watch(&mut self, user: &ChannelKey, slot: Slot, online: bool) {
        let local = self.0.entry(user.clone()).or_default();
        debug_assert!(
            local.online.is_none_or(|before| before == online),
            "all connections of the other process knew the same"
        );
        local.watchers.insert(slot);
        local.online = Some(online);
    }

    /// Each user, whether they are signed in here, and whether they are watched from here.
    pub(in crate::shard) fn users_with_state(&self) -> Vec<(ChannelKey, bool, bool)> {
        let each = self.0.iter();
        debug_assert!(
            self.0.values().all(|local| !local.is_unused()),
            "users who are signed in or watched"
        );
        each.map(|(user, local)| (user.clone(), local.connections > 0, !local.watchers.is_empty()))
            .collect()
    }

    /// Each user, the number of connections signed in as them, and the number of those that watch them.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&ChannelKey, u32, usize)> {
        self.0.iter().map(|(user, local)| (user, local.connections, local.watchers.len()))
    }

    pub(in crate::shard) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Local {
    pub(super) fn on_sign_in(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
        sign_in: &SignIn,
    ) {
        debug_assert!(self.get(key).is_some(), "the slot is that of the key");
        match self.check_sign_in(context, key.slot, sign_in) {
            Ok(accepted) => self.sign_in(context, out, key.slot, sign_in, accepted),
            Err(denial) => self.deny(context, out, key.slot, &denial),
        }
    }

    /// Changes nothing, so a sign-in that is refused leaves the one before as it was.
    fn check_sign_in<'a>(
        &self,
        context: &Context,
        slot: Slot,
        sign_in: &'a SignIn,
    ) -> Result<AcceptedUser<'a>, Box<Denial<'a>>> {
        debug_assert!(
            !self.connections[slot].is_closing,
            "what a closing connection sends is dropped"
        );
        let connection = &self.connections[slot];
        let (app, socket_id) = (context.app(connection.app), connection.socket_id.to_string());
        let (data, auth) = (sign_in.user_data.as_str(), sign_in.auth.as_ref().and_then(Auth::text));
        signature::check_user(app, &socket_id, data, auth)
            .map_err(|error| Box::new(Denial::bad_auth(SIGN_IN, &sign_in.auth, error)))?;
        let most = app.user_data_size_max;
        if data.len() > most as usize {
            let values = [Detail::count(data.len()), Detail::Number(most.into())];
            let cause = Cause::UserDataTooLarge;
            return Err(Box::new(Denial::new(error_code::USER_DATA_TOO_LARGE, cause, values)));
        }
        let Some(user) = &sign_in.user else {
            return Err(Box::new(Denial::new(error_code::UNAUTHORIZED, Cause::UserId, [])));
        };
        let name = format!("{USER_CHANNEL_PREFIX}{}", user.id.text);
        let Ok(channel) = context.keys.make(connection.app, &name) else {
            let values = [Detail::count(user.id.text.len())];
            return Err(Box::new(Denial::new(
                error_code::UNAUTHORIZED,
                Cause::UserIdTooLong,
                values,
            )));
        };
        let most = user.watchlist.len().min(WATCHLIST_MAX);
        let watched = user.watchlist[..most].iter().map(|id| &**id);
        let charge = user_charge(&user.id, user.user_info.as_str(), watched);
        let charged_bytes = connection.extras.as_ref().map_or(0, |extras| extras.sign_in_charge);
        self.check_charge(context, slot, charge.saturating_sub(charged_bytes))
            .map_err(|error| Box::new(self.memory_denial(context, error, SIGN_IN)))?;
        if connection.signed_in().is_some_and(|before| before.key != channel) {
            let values = [Detail::text(&*user.id.text)];
            let cause = Cause::SignedInAlready;
            return Err(Box::new(Denial::new(error_code::SIGNED_IN_ALREADY, cause, values)));
        }
        Ok(AcceptedUser { user, channel, charge, charged_bytes })
    }

    fn sign_in(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        sign_in: &SignIn,
        AcceptedUser { user, channel, charge, charged_bytes }: AcceptedUser<'_>,
    ) {
        debug_assert_eq!(
            self.connections[slot].extras.as_ref().map_or(0, |extras| extras.sign_in_charge),
            charged_bytes,
            "what the sign-in before was charged"
        );
        if self.connections[slot].signed_in().is_some() {
            self.unwatch_all(context, out, slot);
            debug_assert!(
                self.connections[slot].signed_in().is_some_and(|before| before.key == channel),
                "a connection signs in again as the same user only"
            );
        } else {
            self.add_connection(context, out, channel.clone());
        }
        self.discharge(slot, charged_bytes);
        self.charge(slot, charge);
        let connection = &mut self.connections[slot];
        connection.is_authorized = true;
        let (app, socket_id) = (connection.app, connection.socket_id);
        out.observe(|| Observation::SignedIn { app, socket_id, user: user.id.text.clone() });
        let extras = connection.extras.get_or_insert_default();
        extras.sign_in_charge = charge;
        let user_info = user.user_info.as_str().into();
        extras.signed_in = Some(SignedIn { user: user.id.clone(), user_info, key: channel });
        let bytes = frame::write_text_frame(&mut self.text_buffer, |text| {
            outbound::signin_success(sign_in.user_data.as_str(), text)
        })
        .into();
        self.enqueue(context, out, slot, &bytes);
        self.watch_users(context, out, slot, user);
        debug_assert!(self.connections[slot].signed_in().is_some(), "it is signed in");
        debug_assert!(
            self.connections[slot]
                .signed_in()
                .and_then(|signed_in| self.users.0.get(&signed_in.key))
                .is_some_and(|local| local.connections > 0),
            "this core counts the connection for the user"
        );
    }

    /// The user's home is sent the first one only.
    fn add_connection(&mut self, context: &Context, out: &mut Outbox, user: ChannelKey) {
        debug_assert!(user.name().starts_with(USER_CHANNEL_PREFIX), "a user's own channel");
        let local = self.users.0.entry(user.clone()).or_default();
        local.connections += 1;
        if local.connections == 1 {
            let core = context.core();
            out.send_to_home(context.keys.home(&user), Mail::UserHere { user, core });
        }
    }

    /// Ends the watchlist, too, and drops all `Extras`. Idempotent.
    pub(super) fn sign_out(&mut self, context: &Context, out: &mut Outbox, slot: Slot) {
        self.unwatch_all(context, out, slot);
        debug_assert!(
            self.connections[slot].extras.as_ref().is_none_or(|extras| extras.watched.is_empty()),
            "it watches no user"
        );
        let Some(extras) = self.connections[slot].extras.take() else { return };
        self.discharge(slot, extras.sign_in_charge);
        let Some(SignedIn { key: user, .. }) = extras.signed_in else { return };
        let Some(local) = self.users.0.get_mut(&user) else { return };
        debug_assert!(local.connections > 0, "each sign-in was counted");
        // `add_connection` and `import_signed_in` count each signed-in connection once, and it signs out once: `extras`
        // is taken.
        local.connections = local.connections.saturating_sub(1);
        if local.connections > 0 {
            return;
        }
        if local.is_unused() {
            self.users.0.remove(&user);
        }
        let core = context.core();
        out.send_to_home(context.keys.home(&user), Mail::UserGone { user, core });
    }

    /// Watches the first users of the list; the connection is sent their status once all their homes have answered.
    fn watch_users(&mut self, context: &Context, out: &mut Outbox, slot: Slot, user: &User) {
        debug_assert!(self.connections[slot].signed_in().is_some(), "a sign-in has the watchlist");
        debug_assert!(
            self.connections[slot].extras.as_ref().is_none_or(|extras| extras.watched.is_empty()),
            "the watchlist before was ended"
        );
        if user.watchlist.len() > WATCHLIST_MAX {
            let (error, cause) = (error_code::WATCHLIST_TOO_LONG, Cause::WatchlistTooLong);
            self.deny(
                context,
                out,
                slot,
                &Denial::new(error, cause, [Detail::count(WATCHLIST_MAX)]),
            );
        }
        let app = self.connections[slot].app;
        let names = user.watchlist.iter().take(WATCHLIST_MAX);
        let watched: Vec<ChannelKey> = names
            .filter_map(|id| context.keys.make(app, &format!("{USER_CHANNEL_PREFIX}{id}")).ok())
            .collect();
        if watched.is_empty() {
            return;
        }
        debug_assert!(watched.len() <= WATCHLIST_MAX, "the first users of the list");
        let mut unknown = 0;
        let mut to_ask = Vec::new();
        for user in &watched {
            let local = self.users.0.entry(user.clone()).or_default();
            if local.watchers.is_empty() {
                to_ask.push(user.clone());
            }
            local.watchers.insert(slot);
            unknown += u32::from(local.online.is_none());
        }
        debug_assert!(unknown as usize <= watched.len(), "each user is asked about once");
        debug_assert!(to_ask.len() <= watched.len(), "this core asks for each once");
        let extras = self.connections[slot].extras.get_or_insert_default();
        (extras.watched, extras.watched_unknown) = (watched, unknown);
        debug_assert!(extras.signed_in.is_some(), "who watches is signed in");
        let core = context.core();
        self.note_user_changes(context, slot, to_ask.len());
        for user in to_ask {
            out.send_to_home(context.keys.home(&user), Mail::Watch { user, core });
        }
        if unknown == 0 {
            self.send_watchlist(context, out, slot);
        }
    }

    fn unwatch_all(&mut self, context: &Context, out: &mut Outbox, slot: Slot) {
        let Some(extras) = &mut self.connections[slot].extras else { return };
        extras.watched_unknown = 0;
        let core = context.core();
        for user in std::mem::take(&mut extras.watched) {
            let Some(local) = self.users.0.get_mut(&user) else { continue };
            local.watchers.swap_remove(&slot);
            debug_assert!(!local.watchers.contains(&slot), "it is sent no further status");
            if local.watchers.is_empty() {
                local.online = None;
                if local.is_unused() {
                    self.users.0.remove(&user);
                }
                out.send_to_home(context.keys.home(&user), Mail::Unwatch { user, core });
            }
        }
        debug_assert!(
            self.connections[slot].extras.as_ref().is_none_or(|extras| extras.watched.is_empty()),
            "it watches no user"
        );
    }

    /// The first message about a watchlist has all of its users; later ones have one change each.
    fn send_watchlist(&mut self, context: &Context, out: &mut Outbox, slot: Slot) {
        debug_assert!(
            self.connections[slot].extras.as_ref().is_none_or(|extras| extras.watched_unknown == 0),
            "all homes have answered"
        );
        let Some(Extras { watched, .. }) = self.connections[slot].extras.as_deref() else {
            return;
        };
        let (mut online, mut offline) = (Vec::new(), Vec::new());
        for user in watched {
            let is_online = self.users.0.get(user).and_then(|local| local.online);
            let list = if is_online == Some(true) { &mut online } else { &mut offline };
            list.push(user_id_of(user));
        }
        debug_assert_eq!(online.len() + offline.len(), watched.len(), "each is in one list");
        let bytes = frame::write_text_frame(&mut self.text_buffer, |text| {
            outbound::watchlist_events(&online, &offline, text)
        })
        .into();
        self.enqueue(context, out, slot, &bytes);
    }

    /// The home has sent whether a user is online: in answer to `Watch`, or because it changed.
    pub(in crate::shard) fn on_user_status(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        user: &ChannelKey,
        online: bool,
    ) {
        debug_assert!(user.name().starts_with(USER_CHANNEL_PREFIX), "a user's own channel");
        let Some(local) = self.users.0.get_mut(user) else { return };
        if local.watchers.is_empty() || local.online == Some(online) {
            return;
        }
        let is_first = local.online.replace(online).is_none();
        debug_assert!(!local.watchers.is_empty(), "this core has asked for it");
        let watchers: Vec<Slot> = local.watchers.iter().copied().collect();
        debug_assert!(
            watchers
                .iter()
                .all(|slot| self.connections.get(*slot).is_some_and(|one| !one.is_closing)),
            "a connection that closes watches nobody"
        );
        let ids = [user_id_of(user)];
        let (there, gone) = if online { ids.split_at(1) } else { ids.split_at(0) };
        let change = frame::write_text_frame(&mut self.text_buffer, |text| {
            outbound::watchlist_events(there, gone, text)
        })
        .into();
        for slot in watchers {
            let Some(extras) = &mut self.connections[slot].extras else { continue };
            match extras.watched_unknown {
                // It has been sent the whole list, and is sent the change.
                0 => self.enqueue(context, out, slot, &change),
                unknown if is_first => {
                    extras.watched_unknown = unknown - 1;
                    if unknown == 1 {
                        self.send_watchlist(context, out, slot);
                    }
                }
                _ => {}
            }
        }
    }
}

pub(super) fn user_id_of(user: &ChannelKey) -> &str {
    debug_assert!(user.name().starts_with(USER_CHANNEL_PREFIX), "a user's own channel");
    user.name().strip_prefix(USER_CHANNEL_PREFIX).unwrap_or_default()
}
