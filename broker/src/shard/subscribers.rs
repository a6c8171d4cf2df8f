//! Who is subscribed, and whom a message goes to.

use std::{num::NonZeroU32, sync::Arc};

use rmqtt_codec::types::QoS;
use setpoint_model::TopicFilter;

use crate::{
    message::Message,
    session::{Session, Subscription},
};

/// The subscriptions to one device, or to all of a shard.
#[derive(Default)]
pub(super) struct Subscribers {
    sessions: Vec<Subscriber>,
    groups: Vec<Group>,
}

/// One session with its subscriptions here.
struct Subscriber {
    session: Arc<Session>,
    subscriptions: Vec<Entry>,
}

struct Entry {
    subscription: Arc<Subscription>,
    /// Only messages after this place in the shard's order: the earlier ones were published before it.
    after: u64,
}

/// A shared subscription [MQTT-4.8.2]: each message goes to one of its members.
struct Group {
    share: String,
    filter: String,
    members: Vec<(Arc<Session>, Entry)>,
    next: usize,
}

/// How a message reaches a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Match {
    /// The highest QoS of the subscriptions that match.
    pub(super) qos: QoS,
    pub(super) retain_as_published: bool,
    pub(super) ids: Vec<NonZeroU32>,
}

impl Match {
    pub(super) fn merge(mut self, other: Self) -> Self {
        self.qos = self.qos.max(other.qos);
        self.retain_as_published |= other.retain_as_published;
        self.ids.extend(other.ids);
        self
    }
}

/// A member of a shared subscription that a message goes to.
pub(super) type Picked = (Arc<Session>, Arc<Subscription>);

impl Group {
    /// The member whose turn it is among those that `hears` admits, those who are connected first; nobody if none is there
    /// to have the message, and `None` if none hears it.
    fn pick(
        &mut self,
        message: &Message,
        hears: impl Fn(&Session, &Entry) -> bool,
    ) -> Option<Option<Picked>> {
        let count = self.members.len();
        let hearing: Vec<usize> = (0..count)
            .map(|turn| (self.next + turn) % count)
            .filter(|index| {
                self.members
                    .get(*index)
                    .is_some_and(|(session, entry)| hears(session, entry))
            })
            .collect();
        let connected = |index: &&usize| {
            self.members
                .get(**index)
                .is_some_and(|(session, _)| session.lock().live.is_some())
        };
        let first = hearing.first()?;
        let index = *hearing.iter().find(connected).unwrap_or(first);
        self.next = (index + 1) % count;
        let (session, entry) = self.members.get(index)?;
        // A message of QoS 0 is not kept for one who is away.
        let lost = session.lock().live.is_none()
            && message.qos.less_value(entry.subscription.qos) == QoS::AtMostOnce;
        Some((!lost).then(|| (Arc::clone(session), Arc::clone(&entry.subscription))))
    }
}

impl Entry {
    fn hears(&self, session: &Session, message: &Message) -> bool {
        self.after < message.sequence
            && !(self.subscription.no_local && message.publisher == Some(session.id))
            && self.subscription.filter.matches(&message.name)
    }

    fn found(&self) -> Match {
        Match {
            qos: self.subscription.qos,
            retain_as_published: self.subscription.retain_as_published,
            ids: self.subscription.id.into_iter().collect(),
        }
    }
}

impl Subscriber {
    fn find(&self, message: &Message) -> Option<Match> {
        self.subscriptions
            .iter()
            .filter(|entry| entry.hears(&self.session, message))
            .map(Entry::found)
            .reduce(Match::merge)
    }
}

impl Subscribers {
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.groups.is_empty()
    }

    /// Whether anyone may hear the message.
    pub(super) fn hear(&self, message: &Message) -> bool {
        self.sessions.iter().any(|s| {
            s.subscriptions
                .iter()
                .any(|entry| entry.subscription.filter.matches(&message.name))
        }) || self
            .groups
            .iter()
            .any(|group| group.members.iter().any(|(session, e)| e.hears(session, message)))
    }

    /// Whether anyone may hear a message of this name. Cheaper than making the message.
    pub(super) fn may_hear(&self, name: &str) -> bool {
        let sessions = self.sessions.iter().flat_map(|s| &s.subscriptions);
        let members = self.groups.iter().flat_map(|group| &group.members);
        sessions
            .chain(members.map(|(_, entry)| entry))
            .any(|entry| entry.subscription.filter.matches(name))
    }

    /// Everyone the message goes to, apart from shared subscriptions.
    pub(super) fn matches(&self, message: &Message) -> impl Iterator<Item = (&Arc<Session>, Match)> {
        self.sessions
            .iter()
            .filter_map(|s| s.find(message).map(|found| (&s.session, found)))
    }

    /// How the message goes to one session, apart from shared subscriptions.
    pub(super) fn match_of(&self, session: u64, message: &Message) -> Option<Match> {
        self.sessions
            .iter()
            .find(|s| s.session.id == session)?
            .find(message)
    }

    /// For each shared subscription that matches, the member that gets the message.
    pub(super) fn pick_shared(&mut self, message: &Message) -> Vec<Option<Picked>> {
        self.groups
            .iter_mut()
            .filter_map(|group| group.pick(message, |session, entry| entry.hears(session, message)))
            .collect()
    }

    /// Another member of a shared subscription, for a message that the one it was meant for did not get.
    pub(super) fn pick_other(&mut self, shared: &Subscription, message: &Message) -> Option<Picked> {
        let filter = &shared.filter;
        let same = |group: &&mut Group| {
            filter.share() == Some(group.share.as_str()) && filter.as_str() == group.filter
        };
        self.groups.iter_mut().find(same)?.pick(message, |_, _| true)?
    }

    /// Adds a subscription, or replaces the one with the same filter, which then goes on without a gap
    /// [MQTT-3.8.4-3].
    pub(super) fn add(&mut self, session: &Arc<Session>, subscription: &Arc<Subscription>, after: u64) {
        let entry = Entry {
            subscription: Arc::clone(subscription),
            after,
        };
        if let Some(share) = subscription.filter.share() {
            let filter = subscription.filter.as_str();
            let group = match self
                .groups
                .iter()
                .position(|g| g.share == share && g.filter == filter)
            {
                Some(index) => self.groups.get_mut(index),
                None => {
                    let (share, filter) = (share.to_owned(), filter.to_owned());
                    self.groups.push(Group {
                        share,
                        filter,
                        members: Vec::new(),
                        next: 0,
                    });
                    self.groups.last_mut()
                }
            };
            let Some(group) = group else { return };
            match group
                .members
                .iter_mut()
                .find(|(member, _)| member.id == session.id)
            {
                Some((_, old)) => old.subscription = entry.subscription,
                None => group.members.push((Arc::clone(session), entry)),
            }
            return;
        }
        match self.sessions.iter_mut().find(|s| s.session.id == session.id) {
            Some(subscriber) => {
                let same = |old: &&mut Entry| old.subscription.filter == subscription.filter;
                match subscriber.subscriptions.iter_mut().find(same) {
                    Some(old) => old.subscription = entry.subscription,
                    None => subscriber.subscriptions.push(entry),
                }
            }
            None => {
                let session = Arc::clone(session);
                self.sessions.push(Subscriber {
                    session,
                    subscriptions: vec![entry],
                });
            }
        }
    }

    /// Removes one subscription of a session.
    pub(super) fn remove(&mut self, session: u64, filter: &TopicFilter) {
        if filter.share().is_some() {
            for group in &mut self.groups {
                group
                    .members
                    .retain(|(member, e)| member.id != session || e.subscription.filter != *filter);
            }
            self.groups.retain(|group| !group.members.is_empty());
            return;
        }
        for subscriber in self.sessions.iter_mut().filter(|s| s.session.id == session) {
            subscriber
                .subscriptions
                .retain(|entry| entry.subscription.filter != *filter);
        }
        self.sessions.retain(|s| !s.subscriptions.is_empty());
    }

    /// Removes every subscription of a session.
    pub(super) fn remove_session(&mut self, session: u64) {
        self.sessions.retain(|s| s.session.id != session);
        for group in &mut self.groups {
            group.members.retain(|(member, _)| member.id != session);
        }
        self.groups.retain(|group| !group.members.is_empty());
    }
}
