//! What goes between processes: tasks that go on, calls from node to node, writes that are passed
//! on, and what becomes of them when a process or a link is lost. A message that is lost is not sent
//! again, as TCP would, so who waits for it waits out its second.

use std::rc::Rc;
use std::sync::Arc;

use sanso_cluster::wire;
use sanso_core::Encoded;
use sanso_core::cluster::sim::{Moment, Violation, World};
use sanso_core::cluster::{Answer, Instance, NodeId, Partition, Position, RequestId};

use super::layers::{Happening, Layers, UnderWay, Waiting};
use super::mutant::Mutant;
use super::process::{Asked, Filling, Question, Reply, Taking, Wish};
use super::serving::{self, Request};

/// Says whether a life of a process is not over.
pub(super) fn lives(world: &World<Layers>, at: Instance) -> bool {
    world.life(at.node) == Some(at.incarnation)
}

/// Lets a task go on, and grants what it wishes.
pub(super) fn poll(world: &mut World<Layers>, at: Instance, task: u64) -> Result<(), Violation> {
    loop {
        let (now_us, in_touch) = (world.now_us(), world.is_in_touch(at.node));
        let Some(map) = world.node(at.node).map(|node| Arc::clone(node.map())) else { return Ok(()) };
        let Some(running) = &mut world.guests.running[at.node.0 as usize] else { return Ok(()) };
        running.know(now_us, in_touch, &map);
        running.poll(task);
        let mut again = false;
        for wish in running.process.take_wishes() {
            again |= grant(world, at, task, wish)?;
        }
        if !again {
            return Ok(());
        }
    }
}

/// Does what a task wants; says whether it has it already.
pub(super) fn grant(
    world: &mut World<Layers>,
    at: Instance,
    task: u64,
    wish: Wish,
) -> Result<bool, Violation> {
    match wish {
        Wish::Wake(at_us) => {
            let late_us = at_us.saturating_sub(world.now_us());
            world.after(late_us, Happening::Wakes { at, task: Some(task) });
        }
        Wish::Own(asked, promise) => {
            promise.fill(answer(world, at.node, &asked));
            return Ok(true);
        }
        Wish::Ask(to, asked, take) => {
            if let Some(late_us) = way_us(world, at.node, to) {
                world.after(late_us, Happening::Asked { by: at, task, to, asked, take });
            }
        }
        Wish::Detour(to, turn, promise) => {
            let known = world.guests.mutant != Some(Mutant::NoDetour);
            promise.fill(if known { world.detour(at.node, to, turn) } else { None });
            return Ok(true);
        }
        Wish::Submit(route, partition, write, promise) => {
            world.guests.requests += 1;
            let request = RequestId(world.guests.requests);
            world.guests.under_way.insert(request, UnderWay { by: at, task, route, promise });
            let to = route.by.unwrap_or(route.primary);
            let write = if to == at.node {
                write
            } else {
                wire::encoded(Arc::clone(write.bytes())).expect("what was encoded can be decoded")
            };
            let arrives = match route.by {
                Some(by) => Happening::PassedOn { request, by, partition, write },
                None => Happening::Submitted { request, to, partition, write },
            };
            if let Some(late_us) = way_us(world, at.node, to) {
                world.after(late_us, arrives);
            }
        }
        Wish::Outside(errand) => {
            let late_us = world.network.client_us();
            world.after(late_us, Happening::Errand { by: at, task, errand });
        }
        Wish::Beyond(partition, position, until_us) => {
            if world.guests.outside.history.end(partition) > position {
                return Ok(true);
            }
            world.guests.waiting.push(Waiting { partition, position, at, task });
            let late_us = until_us.saturating_sub(world.now_us());
            world.after(late_us, Happening::Wakes { at, task: Some(task) });
        }
        Wish::Respond(reader, attempt, replies) => {
            let late_us = world.network.client_us();
            world.after(late_us, Happening::Answered { reader, attempt, replies });
        }
        Wish::Moment(what, node) => {
            let nth = world.guests.count(what);
            world.tell(|| format!("{what}, at {node} by {at}"));
            world.strike(Moment::Named(what, nth as u32), Some((node, at.node)));
        }
        Wish::Broken(what) => return Err(what),
    }
    Ok(false)
}

/// Draws what a message of a call takes; none when it is lost.
pub(super) fn way_us(world: &mut World<Layers>, from: NodeId, to: NodeId) -> Option<u64> {
    if from == to {
        return Some(100);
    }
    let now_us = world.now_us();
    Some(world.network.carry(from, to, now_us)? - now_us)
}

/// Lets a node's own replica answer.
pub(super) fn answer(world: &mut World<Layers>, at: NodeId, asked: &Asked) -> Reply {
    let Some(Ok(shown)) = world.read(at, asked.partition, Position::default()) else {
        return Reply::NotInSync;
    };
    let (held, fresh) = (shown.state.readable(), shown.fresh);
    match &asked.question {
        Question::Read(request) => {
            held.read(asked.id, request).map_or(Reply::NotLive, |reply| Reply::Read(reply, fresh))
        }
        Question::Segment(segment) => held.segment(asked.id, *segment).map_or(Reply::NotLive, Reply::Segment),
    }
}

/// Brings a reply to who asked; a dead node's connection breaks instead.
pub(super) fn reply_to(
    world: &mut World<Layers>,
    from: NodeId,
    to: Instance,
    task: u64,
    take: Taking,
    reply: Option<Reply>,
) {
    let late_us = match &reply {
        Some(_) => way_us(world, from, to.node),
        None => (from == to.node || world.network.connects(from, to.node)).then_some(1_000),
    };
    if let Some(late_us) = late_us {
        let fill: Filling = Box::new(move |now_us| take(reply, now_us));
        world.after(late_us, Happening::Delivered { at: to, task, fill });
    }
}

/// Lets a node pass a write on to the primary that it knows.
pub(super) fn pass_on(
    world: &mut World<Layers>,
    request: RequestId,
    by: NodeId,
    partition: Partition,
    write: Encoded,
) {
    let map = world.node(by).map(|node| Arc::clone(node.map()));
    let primary = map.and_then(|map| map.partitions.get(partition.0 as usize)?.primary);
    let Some(to) = primary.map(|primary| primary.instance.node) else {
        return fail(world, request);
    };
    let Some(under_way) = world.guests.under_way.get_mut(&request) else { return };
    under_way.route.primary = to;
    world.guests.count("passed on");
    if let Some(late_us) = way_us(world, by, to) {
        world.after(late_us, Happening::Submitted { request, to, partition, write });
    }
}

/// Tells a writer, unless it is cut off, that its connection is broken.
pub(super) fn fail(world: &mut World<Layers>, request: RequestId) {
    let Some(UnderWay { by, task, route, promise }) = world.guests.under_way.remove(&request) else { return };
    let to = route.by.unwrap_or(route.primary);
    if by.node == to || world.network.connects(by.node, to) {
        let fill: Filling = Box::new(move |_| promise.fill(Answer::Unknown));
        world.after(1_000, Happening::Delivered { at: by, task, fill });
    }
}

pub(super) fn arrives(world: &mut World<Layers>, node: NodeId, request: Request) -> Result<(), Violation> {
    let Some(running) = &mut world.guests.running[node.0 as usize] else {
        refuse(world, &request);
        return Ok(());
    };
    let mut request = request;
    if world.guests.mutant == Some(Mutant::SessionForgotten) {
        request.seen = None;
    }
    let process = Rc::clone(&running.process);
    let at = process.me;
    let task = running.spawn(serving::serve(process, request));
    poll(world, at, task)
}

/// Tells a reader that its connection is broken.
pub(super) fn refuse(world: &mut World<Layers>, request: &Request) {
    let (reader, attempt) = (request.reader, request.attempt);
    world.after(1_000, Happening::Answered { reader, attempt, replies: None });
}
