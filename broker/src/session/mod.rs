//! Sessions: what outlives a connection ([`state`]), the connection as others see it ([`live`]), and the task that
//! owns its socket ([`connection`]).

mod admit;
mod connect;
mod connection;
mod denied;
mod finish;
mod inbound;
mod live;
mod outbound;
mod queue;
mod rate;
mod reading;
mod received;
mod registry;
mod state;
mod subscribe;
mod subscription;
mod will;
mod window;
mod writing;

pub(crate) use self::{
    connection::run,
    finish::wind_up,
    live::Live,
    queue::bound_device,
    registry::{Claim, Newcomer, claim, expire, leave},
    state::{Delivery, Session},
    subscription::Subscription,
};
