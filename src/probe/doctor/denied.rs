//! Why credentials are not taken, as far as more attempts can tell.

use std::time::Duration;

use ::stun::message::METHOD_REFRESH;
use tokio::time::timeout;

use super::cause::{Clock, Denied};
use super::checkup::{CREDENTIALS, Credentials};
use super::client::{Client, Failure, Login};
use super::relaying::{Case, refresh_to_zero};
use super::report::Fault;
use crate::net::clock;

/// Longer than any clock is wrong by.
const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How exactly it is told how wrong a clock is.
const CLOCK_PRECISION: Duration = Duration::from_secs(20);

/// Tries what else the credentials could be good for.
pub(super) async fn fault(case: &Case<'_>, client: &mut Client, login: &Login) -> Fault {
    let Some(credentials) = &case.options.credentials else {
        return case.fault(&Failure::Silence);
    };
    let (user, password) = credentials.login(CREDENTIALS);
    let expected_realm = case.options.realm.as_deref();
    let host = case.uri.host.name.as_str();
    let mut works_for_realm = None;
    for realm in expected_realm.into_iter().chain([host]).filter(|realm| *realm != login.realm) {
        client.log_in(Login::new(&user, &password, &login.realm, &login.nonce, realm));
        if client.allocate(case.server).await.is_ok() {
            works_for_realm = Some(realm);
            break;
        }
    }
    let from_secret = matches!(credentials, Credentials::Secret(_));
    let mut clock = Clock::NotAhead;
    if from_secret && works_for_realm.is_none() {
        let (user, password) = credentials.login(YEARS);
        client.log_in(Login::new(&user, &password, &login.realm, &login.nonce, &login.realm));
        if client.allocate(case.server).await.is_ok() {
            // It was only a question.
            let _ = refresh_to_zero(client).await;
            let searched = timeout(case.options.limit * 2, ahead(client, credentials, login)).await;
            clock = Clock::Ahead(searched.ok().flatten());
        }
    }
    if works_for_realm.is_some() {
        let _ = refresh_to_zero(client).await;
    }
    let unix_secs = clock::now().unix_secs;
    Denied {
        user: &user,
        realm: &login.realm,
        expected_realm,
        works_for_realm,
        from_secret,
        clock,
        unix_secs,
    }
    .fault()
}

/// By how much the server's clock is ahead: it takes credentials that are good for longer than that,
/// and no others. None where the server does not say it clearly.
async fn ahead(client: &mut Client, credentials: &Credentials, login: &Login) -> Option<Duration> {
    let (mut refused, mut taken) = (CREDENTIALS, YEARS);
    while taken - refused > CLOCK_PRECISION {
        // Clocks are wrong by hours rather than by years.
        let middle = if taken / 2 > refused { refused * 2 } else { (refused + taken) / 2 };
        let (user, password) = credentials.login(middle);
        client.log_in(Login::new(&user, &password, &login.realm, &login.nonce, &login.realm));
        // There is nothing to refresh, which only those are told who are known.
        match client.request(METHOD_REFRESH, |it| it).await {
            Err(Failure::Refused { code: 437, .. }) => taken = middle,
            Err(Failure::Refused { code: 401, .. }) => refused = middle,
            Ok(_) | Err(_) => return None,
        }
    }
    Some(taken)
}
