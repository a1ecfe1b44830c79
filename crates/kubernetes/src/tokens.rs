//! Tokens of service accounts, checked by the API server: TokenReview (authentication.k8s.io/v1).
//!
//! A token that was found good is believed for some seconds without asking again: an agent shows the same one with
//! every stream that it tries to get, which may be once a second. What [`verdict`] says is pure. Tokens are in no
//! error, log or `Debug`. Must not know what an account is allowed.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::{Api, PostParams};
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use crate::api::{Cluster, Failure, cut};
use crate::budget::Budget;

/// How long a check waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the API server may take then.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a good token is believed. One that is revoked meanwhile lets somebody in for that much longer.
const BELIEVED_FOR: Duration = Duration::from_secs(10);
/// Tokens that are believed at a time; with more, the API server is asked more often.
const BELIEVED_MAX: usize = 1024;

/// Whose token is wanted, and for whom it must be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedToken {
    /// For whom: the token's audience.
    pub audience: String,
    /// The service account's namespace.
    pub namespace: String,
    /// Its name.
    pub account: String,
}

/// Why a token is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// Not a good one, or for another audience.
    #[error("{0}")]
    NotAccepted(String),
    /// Another account's, or a user's; which.
    #[error("it is of {0}")]
    OtherAccount(String),
    /// The API server gave no verdict.
    #[error("{0}")]
    Unchecked(String),
}

/// Asks the API server about tokens.
pub struct TokenReviewer {
    api: Api<TokenReview>,
    expected: ExpectedToken,
    budget: Arc<Budget>,
    believed: Mutex<Believed>,
}

impl fmt::Debug for TokenReviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReviewer").field("expected", &self.expected).finish_non_exhaustive()
    }
}

impl TokenReviewer {
    /// One that has asked nothing yet.
    #[must_use]
    pub fn new(cluster: &Cluster, expected: ExpectedToken, budget: Arc<Budget>) -> Self {
        Self { api: Api::all(cluster.client()), expected, budget, believed: Mutex::default() }
    }

    fn believed(&self) -> MutexGuard<'_, Believed> {
        self.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a token is the expected account's. Answers within ten seconds. Dropped, the API server may or may not
    /// have been asked.
    ///
    /// # Errors
    /// Why it is not taken.
    pub async fn review(&self, token: &str) -> Result<(), TokenRefused> {
        if self.believed().has(token, Instant::now()) {
            return Ok(());
        }
        let unchecked = |why: String| TokenRefused::Unchecked(why);
        if !self.budget.take(TURN_TIMEOUT).await {
            return Err(unchecked("more requests than --kubeconfig-qps allows".to_owned()));
        }
        let spec = TokenReviewSpec {
            token: Some(token.to_owned()),
            audiences: Some(vec![self.expected.audience.clone()]),
        };
        let review = TokenReview { spec, ..TokenReview::default() };
        let params = PostParams::default();
        let asked = self.api.create(&params, &review);
        let answer = match tokio::time::timeout(REVIEW_TIMEOUT, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(unchecked(Failure::of(&error).reason)),
            Err(_) => {
                let seconds = REVIEW_TIMEOUT.as_secs();
                return Err(unchecked(format!("no answer of the API server in {seconds} s")));
            }
        };
        verdict(answer.status.as_ref(), &self.expected)?;
        self.believed().add(token, Instant::now());
        Ok(())
    }
}

/// What the API server's answer comes to.
fn verdict(
    status: Option<&TokenReviewStatus>,
    expected: &ExpectedToken,
) -> Result<(), TokenRefused> {
    let refused = |why: &str| Err(TokenRefused::NotAccepted(why.to_owned()));
    let Some(status) = status else {
        return Err(TokenRefused::Unchecked("the API server's answer has no status".to_owned()));
    };
    if status.authenticated != Some(true) {
        return refused(status.error.as_deref().map_or("it is not authentic", cut));
    }
    // Without them the API server has not looked at whom the token is for.
    if !status.audiences.iter().flatten().any(|audience| *audience == expected.audience) {
        return refused("it is for another audience");
    }
    let user = status.user.as_ref().and_then(|user| user.username.as_deref()).unwrap_or_default();
    let wanted = format!("system:serviceaccount:{}:{}", expected.namespace, expected.account);
    if user != wanted {
        return Err(TokenRefused::OtherAccount(cut(user).to_owned()));
    }
    Ok(())
}

/// Good tokens, each with the time until which it is believed.
#[derive(Default)]
struct Believed(FxHashMap<String, Instant>);

impl Believed {
    fn has(&self, token: &str, now: Instant) -> bool {
        self.0.get(token).is_some_and(|until| now < *until)
    }

    fn add(&mut self, token: &str, now: Instant) {
        self.0.retain(|_, until| now < *until);
        if self.0.len() < BELIEVED_MAX {
            self.0.insert(token.to_owned(), now + BELIEVED_FOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::authentication::v1::UserInfo;

    fn expected() -> ExpectedToken {
        ExpectedToken {
            audience: "us".to_owned(),
            namespace: "kube-system".to_owned(),
            account: "agent".to_owned(),
        }
    }

    fn good() -> TokenReviewStatus {
        let username = Some("system:serviceaccount:kube-system:agent".to_owned());
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec!["others".to_owned(), "us".to_owned()]),
            user: Some(UserInfo { username, ..UserInfo::default() }),
            error: None,
        }
    }

    #[test]
    fn only_the_expected_account_for_the_expected_audience_is_taken() {
        assert_eq!(verdict(Some(&good()), &expected()), Ok(()));
        let user = |name: &str| {
            let user = UserInfo { username: Some(name.to_owned()), ..UserInfo::default() };
            TokenReviewStatus { user: Some(user), ..good() }
        };
        for other in [
            "system:serviceaccount:kube-system:agent2",
            "system:serviceaccount:default:agent",
            "system:serviceaccount:kube-system:agent:x",
            "kube-system:agent",
            "admin",
            "",
        ] {
            let refused = verdict(Some(&user(other)), &expected());
            assert_eq!(refused, Err(TokenRefused::OtherAccount(other.to_owned())));
        }
        for status in [
            TokenReviewStatus { authenticated: Some(false), ..good() },
            TokenReviewStatus { authenticated: None, error: Some("no".to_owned()), ..good() },
            TokenReviewStatus { audiences: None, ..good() },
            TokenReviewStatus { audiences: Some(vec!["others".to_owned()]), ..good() },
        ] {
            let refused = verdict(Some(&status), &expected());
            assert!(matches!(refused, Err(TokenRefused::NotAccepted(_))), "{refused:?}");
        }
        assert!(matches!(verdict(None, &expected()), Err(TokenRefused::Unchecked(_))));
    }

    #[test]
    fn a_good_token_is_believed_for_a_while_and_only_so_many_are() {
        let (mut believed, now) = (Believed::default(), Instant::now());
        believed.add("a", now);
        assert!(believed.has("a", now + BELIEVED_FOR - Duration::from_millis(1)));
        assert!(!believed.has("a", now + BELIEVED_FOR));
        assert!(!believed.has("b", now));
        for number in 0..2 * BELIEVED_MAX {
            believed.add(&number.to_string(), now);
        }
        assert_eq!(believed.0.len(), BELIEVED_MAX);
        believed.add("late", now + BELIEVED_FOR);
        assert_eq!(believed.0.len(), 1);
    }
}
