//! The steps of a TURN server: allocation, permission, channel, bytes.

use std::net::SocketAddr;
use std::time::Duration;

use ::stun::message::{
    METHOD_ALLOCATE, METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION, METHOD_REFRESH,
};
use ::turn::proto::channum::ChannelNumber;
use ::turn::proto::lifetime::Lifetime;
use ::turn::proto::peeraddr::PeerAddress;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::cause;
use super::checkup::{CREDENTIALS, Log, Options};
use super::client::{Client, Failure, Login, allocation};
use super::denied;
use super::dtls;
use super::report::Fault;
use super::tls;
use super::traffic::{self, CHANNEL, Far, Outside, Own};
use super::uri::{Transport, Uri};
use super::wire::Wire;
use crate::net::clock;
use crate::probe::message::Request;

/// What the steps share.
pub(super) struct Case<'c> {
    pub(super) uri: &'c Uri,
    pub(super) options: &'c Options,
    pub(super) server: SocketAddr,
}

impl Case<'_> {
    pub(super) fn fault(&self, failure: &Failure) -> Fault {
        if let Failure::Refused { code: 300, alternate: Some(alternate), .. } = failure {
            return Fault::new(
                format!("300: try {alternate}"),
                format!("the server sends its clients to {alternate}"),
                format!("examine that one: hairpin doctor turn:{alternate}"),
            );
        }
        cause::failure(failure, self.server, self.uri.transport, self.options.limit)
    }

    /// Another way to the server, of which nothing is written down.
    async fn another_client(&self) -> Option<Client> {
        let wire = match self.uri.transport {
            Transport::Udp => Wire::udp(self.server).await.ok()?,
            Transport::Tcp => Wire::tcp(TcpStream::connect(self.server).await.ok()?),
            Transport::Tls => {
                let stream = TcpStream::connect(self.server).await.ok()?;
                let trust = self.options.trust.as_ref()?;
                let now = clock::now().unix_secs;
                let secured = tls::secure(stream, &self.uri.host.name, trust, now).await.ok()?;
                Wire::tls(secured.stream)
            }
            Transport::Dtls => {
                let trust = self.options.trust.as_ref()?;
                let now = clock::now().unix_secs;
                let secured = dtls::secure(self.server, &self.uri.host.name, trust, now).await;
                Wire::dtls(secured.ok()?.stream)
            }
        };
        Some(Client::new(wire, self.options.limit))
    }
}

/// Goes on with a server that has answered a Binding request.
pub(super) async fn examine(
    log: &mut Log<'_>,
    uri: &Uri,
    options: &Options,
    server: SocketAddr,
    mut client: Client,
) -> Option<()> {
    let case = Case { uri, options, server };
    let challenge = challenge(log, &case, &mut client).await?;
    let (relayed, login) = match challenge {
        Challenge::Open(relayed) => (relayed, None),
        Challenge::Realm(login) => (allocate(log, &case, &mut client, &login).await?, Some(login)),
    };
    let talked = talk(log, &case, &mut client, relayed, login.as_ref()).await;
    if talked.is_some() {
        release(log, &case, &mut client).await;
    } else {
        // Enough is said already; it would count for ten minutes.
        let _ = refresh_to_zero(&mut client).await;
    }
    talked
}

/// Sends through the allocation.
async fn talk(
    log: &mut Log<'_>,
    case: &Case<'_>,
    client: &mut Client,
    relayed: SocketAddr,
    login: Option<&Login>,
) -> Option<()> {
    reach(log, case, relayed)?;
    let (mut far, own) = permit(log, case, client, login, relayed).await?;
    let peer = match &far {
        Far::Relay(_, address) => *address,
        // Who it is to the relay shows when it sends there: a NAT may show another port to each.
        Far::Own(own) => from_outside(log, case, client, relayed, Some(own)).await?,
    };
    let mut carried = bind(log, case, client, peer).await;
    if carried.is_some() {
        carried = bytes(log, case, client, &mut far).await;
    }
    if let Far::Relay(other, _) = &mut far {
        let _ = refresh_to_zero(other).await;
        from_outside(log, case, client, relayed, own.as_ref()).await;
    }
    carried
}

/// What the server answers to those without credentials.
enum Challenge {
    /// An allocation.
    Open(SocketAddr),
    /// Realm and nonce, and what was made of them.
    Realm(Login),
}

async fn challenge(log: &mut Log<'_>, case: &Case<'_>, client: &mut Client) -> Option<Challenge> {
    let begun = log.begin("challenge", case.options.limit);
    let answer = client.ask(METHOD_ALLOCATE, |it| allocation(it, case.server)).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(failure) => return log.end(begun, Err(case.fault(&failure))),
    };
    let realm = answer.realm().filter(|realm| !realm.is_empty());
    let outcome = match (answer.error(), realm, answer.nonce(), &case.options.credentials) {
        (None, ..) => match answer.relayed() {
            Some(relayed) => Ok((Challenge::Open(relayed), format!("relayed address {relayed}"))),
            None => Err(case.fault(&Failure::Empty("XOR-RELAYED-ADDRESS"))),
        },
        (Some((401, _)), Some(realm), Some(nonce), Some(credentials)) => {
            let (user, password) = credentials.login(CREDENTIALS);
            let login = Login::new(&user, &password, &realm, &nonce, &realm);
            let detail = format!("401, as it should be the first time; realm {realm:?}");
            Ok((Challenge::Realm(login), detail))
        }
        (Some((401, _)), Some(realm), Some(_), None) => Err(Fault::new(
            format!("401, realm {realm:?}"),
            "the server wants credentials, and none were given",
            "give --user and --pass, or --secret",
        )),
        (Some((401, _)), None, ..) => Err(Fault::new(
            "401 without a realm",
            "realm unset: without one no client can authenticate",
            "set the server's realm",
        )),
        (Some((401, _)), _, None, _) => Err(Fault::new(
            "401 without a nonce",
            "the server's answer is against RFC 8489 §9.2: no client can authenticate",
            "update the server",
        )),
        (Some((code, reason)), ..) => {
            let alternate = answer.alternate_server();
            Err(case.fault(&Failure::Refused { code, reason, alternate }))
        }
    };
    let is_open = matches!(&outcome, Ok((Challenge::Open(_), _)));
    let challenge = log.end(begun, outcome)?;
    if is_open {
        log.warn(
            "the server relays for everybody, without credentials".to_owned(),
            "require authentication, or strangers will use it for attacks".to_owned(),
        );
    }
    Some(challenge)
}

async fn allocate(
    log: &mut Log<'_>,
    case: &Case<'_>,
    client: &mut Client,
    login: &Login,
) -> Option<SocketAddr> {
    // With the attempts to find out why it is denied.
    let limit = case.options.limit * 7;
    let begun = log.begin("allocate", limit);
    client.log_in(login.clone());
    let allocated = timeout(limit, async {
        match client.allocate(case.server).await {
            Ok((relayed, lifetime)) => {
                Ok((relayed, format!("relayed address {relayed} for {lifetime} s")))
            }
            Err(Failure::Refused { code: 401, .. }) => {
                Err(denied::fault(case, client, login).await)
            }
            Err(failure) => Err(case.fault(&failure)),
        }
    });
    let outcome = allocated.await.unwrap_or_else(|_| Err(case.fault(&Failure::Silence)));
    log.end(begun, outcome)
}

/// Whether peers can reach the relayed address.
fn reach(log: &mut Log<'_>, case: &Case<'_>, relayed: SocketAddr) -> Option<()> {
    match cause::relayed(relayed, case.server) {
        None => Some(()),
        Some(fault) => {
            let begun = log.begin("relayed address", case.options.limit);
            log.end(begun, Err(fault))
        }
    }
}

/// Who there is to talk to through the relay.
struct Peers {
    /// A second allocation, or why there is none.
    relay: Result<(Box<Client>, SocketAddr), String>,
    /// A socket of this machine.
    own: Option<Own>,
}

impl Peers {
    async fn find(case: &Case<'_>, login: Option<&Login>) -> Self {
        let limit = case.options.limit;
        let relay = timeout(limit * 2, async {
            let mut client = case.another_client().await.ok_or("no second connection")?;
            if let Some(login) = login {
                client.log_in(login.clone());
            }
            match client.allocate(case.server).await {
                Ok((relayed, _)) => Ok((Box::new(client), relayed)),
                Err(failure) => Err(case.fault(&failure).detail),
            }
        });
        let relay = relay.await.unwrap_or_else(|_| Err("no answer".to_owned()));
        let own = timeout(limit, Own::find(case.server)).await;
        Self { relay, own: own.ok().and_then(Result::ok) }
    }
}

/// Asks for permission for each peer there is; the one to talk to, and this machine's own socket
/// where it is another one.
async fn permit(
    log: &mut Log<'_>,
    case: &Case<'_>,
    client: &mut Client,
    login: Option<&Login>,
    relayed: SocketAddr,
) -> Option<(Far, Option<Own>)> {
    // Three for finding peers, and one for each permission.
    let begun = log.begin("permission", case.options.limit * 6);
    let peers = Peers::find(case, login).await;
    let mut details = Vec::new();
    let mut refused = Vec::new();
    let mut far = None;
    match peers.relay {
        Err(why) => details.push(format!("no second allocation to talk to ({why})")),
        Ok((mut other, address)) => {
            let near = permission(client, address).await;
            let back = permission(&mut other, relayed).await;
            match near.and(back) {
                Ok(()) => {
                    details.push(format!("{address}, another relayed address"));
                    far = Some(Far::Relay(other, address));
                }
                Err(failure) => {
                    // Not needed any more.
                    let _ = refresh_to_zero(&mut other).await;
                    refused.push((address, failure));
                }
            }
        }
    }
    let mut own = peers.own;
    if let Some(found) = &own {
        match permission(client, found.mapped).await {
            Ok(()) => details.push(format!("{}, this machine", found.mapped)),
            Err(failure) => {
                refused.push((found.mapped, failure));
                own = None;
            }
        }
    }
    if far.is_none() {
        far = own.take().map(Far::Own);
    }
    let outcome = match (far, refused.first()) {
        (Some(far), _) => {
            details.extend(refused.iter().map(|(peer, _)| format!("{} refused", peer.ip())));
            Ok(((far, own), details.join("; ")))
        }
        (None, Some((_, Failure::Refused { code: 403, .. }))) => {
            let refused: Vec<_> = refused.iter().map(|(peer, _)| *peer).collect();
            Err(cause::forbidden(&refused))
        }
        (None, Some((_, failure))) => Err(case.fault(failure)),
        (None, None) => Err(Fault::new(
            details.join("; "),
            "there is no peer to try it with: no second allocation, and no answer over UDP",
            "see the quota, or let this machine reach the server over UDP, too",
        )),
    };
    log.end(begun, outcome)
}

async fn permission(client: &mut Client, peer: SocketAddr) -> Result<(), Failure> {
    client.request(METHOD_CREATE_PERMISSION, |it| towards(it, peer)).await.map(|_| ())
}

fn towards(request: Request, peer: SocketAddr) -> Request {
    request.with(&PeerAddress { ip: peer.ip(), port: peer.port() })
}

async fn bind(
    log: &mut Log<'_>,
    case: &Case<'_>,
    client: &mut Client,
    peer: SocketAddr,
) -> Option<()> {
    let begun = log.begin("channel", case.options.limit);
    let number = ChannelNumber(CHANNEL);
    let bound = client.request(METHOD_CHANNEL_BIND, |it| towards(it.with(&number), peer)).await;
    let detail = format!("{CHANNEL:#x} to {peer}");
    log.end(begun, bound.map(|_| ((), detail)).map_err(|failure| case.fault(&failure)))
}

async fn bytes(
    log: &mut Log<'_>,
    case: &Case<'_>,
    client: &mut Client,
    far: &mut Far,
) -> Option<()> {
    let limit = case.options.limit;
    let begun = log.begin("relay", limit);
    let tally = match traffic::echo(client, far, case.options.count, limit).await {
        Ok(tally) => tally,
        Err(error) => return log.end(begun, Err(case.fault(&Failure::Io(error)))),
    };
    if tally.received() == 0 {
        let fault = Fault::new(
            format!("0 of {} came back within {limit:?}", tally.sent),
            "nothing comes through the relay: its ports are blocked by a firewall, or the server \
             does not reach its own relayed address",
            "open UDP for relay.ports, 49152 to 65535 unless set; behind 1:1 NAT set relay.external",
        );
        return log.end(begun, Err(fault));
    }
    let lost = tally.sent - tally.received();
    log.end(begun, Ok(((), tally.words())));
    if lost > 0 {
        log.warn(
            format!("{lost} of {} datagrams were lost", tally.sent),
            "see the load of the server and of the network, and the server's bandwidth limits"
                .to_owned(),
        );
    }
    Some(())
}

/// Whether the relay ports are open to others than the server itself; who came in through them.
async fn from_outside(
    log: &mut Log<'_>,
    case: &Case<'_>,
    client: &mut Client,
    relayed: SocketAddr,
    own: Option<&Own>,
) -> Option<SocketAddr> {
    let limit = case.options.limit;
    let begun = log.begin("from outside", limit);
    let Some(own) = own else {
        let why = "this machine is no peer that the server would take; whether others reach the \
                   relay ports is not known";
        log.skip(begun, why.to_owned());
        return None;
    };
    let outcome = match traffic::outside(client, relayed, own, limit).await {
        Err(error) => Err(case.fault(&Failure::Io(error))),
        Ok(Outside { inbound: None, .. }) => Err(Fault::new(
            format!("nothing sent to {relayed} came through within {limit:?}"),
            "the relay port range is blocked: UDP to the relayed address does not reach the server",
            "open UDP for relay.ports, 49152 to 65535 unless set, in the server's firewall and in \
             its provider's security group; see that this network lets UDP out to such ports",
        )),
        Ok(Outside { inbound: Some(peer), outbound: false }) => Err(Fault::new(
            format!("{peer} came in; nothing came back within {limit:?}"),
            "what the server sends from its relay ports does not arrive",
            "let UDP from relay.ports out of the server's firewall",
        )),
        Ok(Outside { inbound: Some(peer), outbound: true }) => {
            Ok((peer, format!("{peer} came in through port {}, and back", relayed.port())))
        }
    };
    log.end(begun, outcome)
}

async fn release(log: &mut Log<'_>, case: &Case<'_>, client: &mut Client) {
    let begun = log.begin("release", case.options.limit);
    let released = refresh_to_zero(client).await;
    let outcome = released.map(|()| ((), "the allocation is given back".to_owned()));
    log.end(begun, outcome.map_err(|failure| case.fault(&failure)));
}

pub(super) async fn refresh_to_zero(client: &mut Client) -> Result<(), Failure> {
    let zero = Lifetime(Duration::ZERO);
    client.request(METHOD_REFRESH, |it| it.with(&zero)).await.map(|_| ())
}
