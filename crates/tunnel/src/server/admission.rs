//! Who may be an agent, and what it may claim: what it has shown (`identity`), and what a policy says of that
//! (`claims`). Tokens are checked elsewhere: questions go out on a bounded channel, and an agent whose question is not
//! answered in time is refused, it alone.
//!
//! Must not know who checks tokens, nor files. Start at [`Admission::admit`].

mod claims;
mod identity;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use model::AgentPolicy;
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot, watch};

use super::agents::Hello;
use crate::grpc;
use crate::stats::Counter;
pub use identity::ServiceAccount;
pub(crate) use identity::{Identity, Peer};

/// How long an agent waits for its token to be checked: less than agents wait for a server's word.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(12);
/// Agents of one address whose tokens are checked at a time. Further ones are refused: nobody keeps the others waiting
/// with tokens of no use.
const WAITING_PER_ADDRESS_MAX: usize = 16;
/// A token of Kubernetes has one or two KiB.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// A token, on its way to whoever checks it. Not shown by `Debug`.
pub struct Token(String);

impl Token {
    /// As it was sent, without the scheme before it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Whose token it is, or why that is not said.
pub type Verdict = Result<ServiceAccount, TokenError>;

/// Why a token lets nobody in. The texts must not have the token in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not a good one, or for another audience.
    #[error("the token is not accepted: {0}")]
    NotAccepted(String),
    /// It is another account's.
    #[error("the token is of {0}, which may not be an agent")]
    OtherAccount(String),
    /// Nobody could be asked.
    #[error("the token could not be checked: {0}")]
    Unchecked(String),
}

/// A token that somebody is to check.
#[derive(Debug)]
pub struct Question {
    /// Which.
    pub token: Token,
    /// Where the verdict goes. Nobody listens any more when it is closed.
    pub answer: oneshot::Sender<Verdict>,
}

/// What agents must show. By default nothing beyond what TLS asks for.
#[derive(Debug, Default)]
pub struct Admission {
    tokens: Option<mpsc::Sender<Question>>,
    policy: Option<watch::Receiver<Arc<AgentPolicy>>>,
    /// Agents whose token is being checked, by address.
    waiting: Mutex<FxHashMap<IpAddr, usize>>,
}

/// One that waits, until dropped.
struct Waiting<'a> {
    all: &'a Mutex<FxHashMap<IpAddr, usize>>,
    address: IpAddr,
}

impl<'a> Waiting<'a> {
    /// `None` where too many of this address wait already.
    fn begin(all: &'a Mutex<FxHashMap<IpAddr, usize>>, address: IpAddr) -> Option<Self> {
        let mut waiting = all.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.entry(address).or_default();
        if *count >= WAITING_PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Self { all, address })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let left = waiting.get_mut(&self.address).map(|count| {
            *count -= 1;
            *count
        });
        if left == Some(0) {
            waiting.remove(&self.address);
        }
    }
}

/// Agents that were refused, by reason.
#[derive(Debug, Default)]
pub struct Refusals([Counter; Reason::ALL.len()]);

impl Refusals {
    /// How many of each reason.
    pub fn get(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Reason::ALL.into_iter().zip(&self.0).map(|(reason, count)| (reason.name(), count.get()))
    }

    pub(super) fn count(&self, reason: Reason) {
        self.0[reason as usize].add(1);
    }
}

/// In what an agent fell short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Malformed,
    NoToken,
    BadToken,
    OtherAccount,
    Unchecked,
    NotAllowed,
}

impl Reason {
    /// In their order.
    const ALL: [Self; 6] = [
        Self::Malformed,
        Self::NoToken,
        Self::BadToken,
        Self::OtherAccount,
        Self::Unchecked,
        Self::NotAllowed,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoToken => "no_token",
            Self::BadToken => "bad_token",
            Self::OtherAccount => "other_account",
            Self::Unchecked => "unchecked",
            Self::NotAllowed => "not_allowed",
        }
    }
}

/// Why an agent is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// It does not say who it is.
    #[error("{0}")]
    Malformed(&'static str),
    /// No token, or not one.
    #[error("{0}")]
    NoToken(&'static str),
    /// Its token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// What it claims.
    #[error("{0}")]
    NotAllowed(String),
}

impl Refused {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Malformed(_) => Reason::Malformed,
            Self::NoToken(_) => Reason::NoToken,
            Self::Token(TokenError::NotAccepted(_)) => Reason::BadToken,
            Self::Token(TokenError::OtherAccount(_)) => Reason::OtherAccount,
            Self::Token(TokenError::Unchecked(_)) => Reason::Unchecked,
            Self::NotAllowed(_) => Reason::NotAllowed,
        }
    }

    /// gRPC's code for it.
    pub(super) fn code(&self) -> u8 {
        match self.reason() {
            Reason::Malformed => grpc::UNKNOWN,
            Reason::NoToken | Reason::BadToken | Reason::OtherAccount => grpc::UNAUTHENTICATED,
            Reason::Unchecked => grpc::UNAVAILABLE,
            Reason::NotAllowed => grpc::PERMISSION_DENIED,
        }
    }

    /// What the agent is told: what others may do is not its business.
    pub(super) fn told(&self) -> &'static str {
        match self {
            Self::Malformed(problem) | Self::NoToken(problem) => problem,
            Self::Token(TokenError::Unchecked(_)) => "the token cannot be checked now",
            Self::Token(_) => "the token is not accepted",
            Self::NotAllowed(_) => "this agent may not claim this",
        }
    }
}

impl Admission {
    /// Tokens are asked for where there is somebody who checks them, and claims are bound where there is a policy,
    /// which may change while streams go on.
    #[must_use]
    pub fn new(
        tokens: Option<mpsc::Sender<Question>>,
        policy: Option<watch::Receiver<Arc<AgentPolicy>>>,
    ) -> Self {
        Self { tokens, policy, waiting: Mutex::default() }
    }

    /// Lets an agent in that has shown what it must. Dropped, nothing has happened.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) async fn admit(
        &self,
        peer: &Peer,
        fields: &HeaderMap,
        hello: &Hello,
    ) -> Result<Identity, Refused> {
        let mut identity = Identity::of(peer);
        if let Some(checkers) = &self.tokens {
            let token = bearer(fields)?;
            let address = peer.address.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
            let _waiting = Waiting::begin(&self.waiting, address).ok_or_else(|| {
                TokenError::Unchecked("too many of this address wait for it".to_owned())
            })?;
            identity.service_account = Some(checked(checkers, token).await?);
        }
        if let Some(policy) = &self.policy {
            let policy = policy.borrow().clone();
            claims::check(&policy, &identity, hello).map_err(Refused::NotAllowed)?;
        }
        Ok(identity)
    }

    /// Ready when a new policy does not allow any more what an agent has claimed. Dropped, nothing is missed by
    /// whoever asks again.
    pub(super) async fn withdrawn(&self, identity: &Identity, hello: &Hello) -> String {
        if let Some(policy) = &self.policy {
            let mut policy = policy.clone();
            // Also one that has come since it was admitted.
            loop {
                let now = policy.borrow_and_update().clone();
                if let Err(problem) = claims::check(&now, identity, hello) {
                    return problem;
                }
                if policy.changed().await.is_err() {
                    break;
                }
            }
        }
        std::future::pending().await
    }
}

/// The token of `Authorization: Bearer …`, of which there must be exactly one.
fn bearer(fields: &HeaderMap) -> Result<Token, Refused> {
    let mut all = fields.get_all("authorization").iter();
    let (Some(value), None) = (all.next(), all.next()) else {
        return Err(Refused::NoToken("expected exactly one authorization in the context"));
    };
    let token = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
    let token = token.filter(|token| !token.is_empty() && token.len() <= TOKEN_BYTES_MAX);
    let token = token.ok_or(Refused::NoToken("expected Bearer and a token as authorization"))?;
    Ok(Token(token.to_owned()))
}

async fn checked(checkers: &mpsc::Sender<Question>, token: Token) -> Verdict {
    let unchecked = |text: &str| TokenError::Unchecked(text.to_owned());
    let (answer, verdict) = oneshot::channel();
    checkers.try_send(Question { token, answer }).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => unchecked("too many wait for it"),
        mpsc::error::TrySendError::Closed(_) => unchecked("nobody checks them any more"),
    })?;
    match tokio::time::timeout(TOKEN_TIMEOUT, verdict).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(_)) => Err(unchecked("whoever checks them has failed")),
        Err(_) => Err(unchecked("no answer in time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn fields(values: &[&'static str]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for value in values {
            fields.append("authorization", HeaderValue::from_static(value));
        }
        fields
    }

    #[test]
    fn exactly_one_token_is_taken_and_never_shown() {
        let token = bearer(&fields(&["Bearer secret"])).unwrap();
        assert_eq!((token.as_str(), format!("{token:?}").as_str()), ("secret", "Token"));
        for values in
            [&[][..], &["Bearer a", "Bearer b"], &["Bearer "], &["Basic a"], &["bearer a"]]
        {
            let refused = bearer(&fields(values)).unwrap_err();
            assert_eq!(refused.reason(), Reason::NoToken, "{values:?}");
        }
        let long = HeaderValue::from_str(&format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX + 1)));
        let mut fields = HeaderMap::new();
        fields.insert("authorization", long.unwrap());
        assert_eq!(bearer(&fields).unwrap_err().reason(), Reason::NoToken);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_for_a_token_to_be_checked() {
        let (ask, mut asked) = mpsc::channel(1);
        let token = || Token("t".to_owned());
        // Not answered at all.
        let verdict = checked(&ask, token()).await;
        assert!(matches!(verdict, Err(TokenError::Unchecked(_))), "{verdict:?}");
        // The queue is full.
        let start = tokio::time::Instant::now();
        let verdict = checked(&ask, token()).await;
        assert!(matches!(verdict, Err(TokenError::Unchecked(_))), "{verdict:?}");
        assert_eq!(start.elapsed(), Duration::ZERO);
        // Whoever asked does not listen any more; who asks now does.
        assert!(asked.recv().await.unwrap().answer.is_closed());
        let account = ServiceAccount { namespace: "n".to_owned(), name: "a".to_owned() };
        let answer = async {
            let question = asked.recv().await.unwrap();
            question.answer.send(Ok(account.clone())).unwrap();
        };
        let (verdict, ()) = tokio::join!(checked(&ask, token()), answer);
        assert_eq!(verdict, Ok(account));
        drop(asked);
        assert!(matches!(checked(&ask, token()).await, Err(TokenError::Unchecked(_))));
    }

    #[test]
    fn one_address_does_not_fill_the_queue() {
        let all = Mutex::default();
        let [one, other] = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        let begin = |address| Waiting::begin(&all, address);
        let mut waiting: Vec<_> = (0..WAITING_PER_ADDRESS_MAX).map(|_| begin(one)).collect();
        assert!(waiting.iter().all(Option::is_some));
        assert!(begin(one).is_none());
        assert!(begin(other).is_some());
        waiting.pop();
        assert!(begin(one).is_some());
        waiting.clear();
        assert!(all.lock().unwrap().is_empty());
    }

    #[test]
    fn reasons_are_counted_under_their_names() {
        let refusals = Refusals::default();
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            refusals.count(reason);
        }
        assert!(refusals.get().all(|(name, count)| !name.is_empty() && count == 1));
    }
}
