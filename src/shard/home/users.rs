//! Users at their home: on which cores they are signed in, and which cores watch them (docs/PROTOCOL.md C6). PURE.
//!
//! A user is named by the channel `#server-to-user-{id}`, whose home is the user's home. A user is online while signed
//! in on a core of this node or on another node; `Cluster` knows the latter and passes it in as `elsewhere`. Cores send
//! their first and last sign-in of a user only, so that a number is kept where the connections are and nowhere else.
//!
//! Limit: none of its own. An entry exists while a core has the user signed in or watches them, and connections and
//! what each keeps are limited (`local/connection.rs`). Cost: a few steps for a sign-in or a watch (one look-up); a
//! change of status is one mail to each core that watches.

use hashbrown::HashMap;

use super::Home;
use super::change::Change;
use crate::pusher::channel_name::Access;
use crate::shard::channel_key::ChannelKey;
use crate::shard::context::Context;
use crate::shard::core_set::CoreSet;
use crate::shard::invariants::ensure;
use crate::shard::mail::Mail;
use crate::shard::outbox::Outbox;

/// A user as the user's home knows them.
#[derive(Debug, Default)]
struct HomeUser {
    signed_in: CoreSet,
    watching: CoreSet,
}

const _: () = assert!(size_of::<HomeUser>() <= 32, "one for each user");

/// Users whose home this core is, by their own channel.
#[derive(Debug, Default)]
pub(in crate::shard) struct HomeUsers(HashMap<ChannelKey, HomeUser, foldhash::fast::FixedState>);

impl HomeUsers {
    /// What a core of another process had to do with the user.
    pub(super) fn restore(&mut self, user: ChannelKey, core: u16, signed_in: bool, watching: bool) {
        debug_assert_eq!(user.kind.access, Access::User, "a user is named by their own channel");
        let home = self.0.entry(user).or_default();
        if signed_in {
            home.signed_in.insert(core);
        }
        if watching {
            home.watching.insert(core);
        }
    }

    /// Whether a core of this node has the user signed in, or watches them.
    pub(in crate::shard) fn contains(&self, user: &ChannelKey) -> bool {
        self.0.contains_key(user)
    }

    /// Whether the user is signed in on this node.
    pub(in crate::shard) fn is_online(&self, user: &ChannelKey) -> bool {
        self.0.get(user).is_some_and(|home| !home.signed_in.is_empty())
    }

    /// Whether a core of this node watches the user.
    pub(in crate::shard) fn is_watched(&self, user: &ChannelKey) -> bool {
        self.0.get(user).is_some_and(|home| !home.watching.is_empty())
    }

    pub(super) fn check_invariants(&self) -> Result<(), String> {
        for (user, home) in &self.0 {
            let is_needed = !home.signed_in.is_empty() || !home.watching.is_empty();
            ensure!(is_needed, "{} is kept for nobody", user.name());
        }
        Ok(())
    }

    /// Entries: 0 when everybody has left.
    pub(in crate::shard) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Home {
    /// `core` has connections of the user now, or has lost the last one.
    pub(in crate::shard) fn note_user(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        (user, core): (&ChannelKey, u16),
        is_signed_in: bool,
        elsewhere: bool,
    ) {
        debug_assert!(core < context.settings.cores, "a core of this process");
        debug_assert_eq!(context.keys.home(user), context.core(), "this core is the user's home");
        let was_here = self.users.is_online(user);
        debug_assert_eq!(user.kind.access, Access::User, "a user is named by their own channel");
        let home = self.users.0.entry(user.clone()).or_default();
        if is_signed_in {
            home.signed_in.insert(core);
        } else {
            debug_assert!(home.signed_in.contains(core), "a core reports each end once");
            home.signed_in.remove(core);
        }
        let is_here = !home.signed_in.is_empty();
        if is_here != was_here {
            out.change(context, user, || Change::Online(is_here));
        }
        self.send_status(out, user, was_here || elsewhere, is_here || elsewhere);
        self.drop_user_if_unused(context, out, user);
    }

    /// Sends a user's status to the watching cores, if it has changed.
    pub(in crate::shard) fn send_status(
        &self,
        out: &mut Outbox,
        user: &ChannelKey,
        was_online: bool,
        online: bool,
    ) {
        let Some(home) = self.users.0.get(user).filter(|_| online != was_online) else { return };
        for core in home.watching.iter() {
            out.send_from_home(core, Mail::UserStatus { user: user.clone(), online });
        }
    }

    /// A core begins to watch the user, and is sent the status.
    pub(in crate::shard) fn watch(
        &mut self,
        out: &mut Outbox,
        user: ChannelKey,
        core: u16,
        elsewhere: bool,
    ) {
        let home = self.users.0.entry(user.clone()).or_default();
        debug_assert!(!home.watching.contains(core), "a core begins to watch once");
        debug_assert_eq!(user.kind.access, Access::User, "a user is named by their own channel");
        home.watching.insert(core);
        let online = elsewhere || !home.signed_in.is_empty();
        out.send_from_home(core, Mail::UserStatus { user, online });
    }

    pub(in crate::shard) fn unwatch(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        user: &ChannelKey,
        core: u16,
    ) {
        debug_assert_eq!(context.keys.home(user), context.core(), "this core is the user's home");
        if let Some(home) = self.users.0.get_mut(user) {
            debug_assert!(home.watching.contains(core), "a core that watches ends it once");
            home.watching.remove(core);
            self.drop_user_if_unused(context, out, user);
        }
    }

    fn drop_user_if_unused(&mut self, context: &Context, out: &mut Outbox, user: &ChannelKey) {
        let unused = |home: &HomeUser| home.signed_in.is_empty() && home.watching.is_empty();
        if self.users.0.get(user).is_some_and(unused) {
            self.users.0.remove(user);
            debug_assert!(!self.users.contains(user), "nobody needs the user's topic here");
            out.change(context, user, || Change::Unneeded);
        }
    }
}
