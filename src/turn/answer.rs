//! Responses: the one place where a success, or a refusal, becomes bytes.

use super::Now;
use super::allocation::{FiveTuple, Transport};
use super::alternate::Alternate;
use super::auth::Signer;
use super::request::Reject;
use super::server::Server;
use super::stats::{DropReason, RequestMethod};
use super::verdict::Verdict;
use crate::stun::attribute::{AlternateDomain, AlternateServer, ErrorCode, Software};
use crate::stun::{Builder, Class, ClassicRequest, Code, Message, Method, TransactionId};

/// Where a response goes and how it is signed.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) method: Method,
    pub(super) transaction_id: TransactionId,
    pub(super) has_fingerprint: bool,
    pub(super) from: FiveTuple,
    pub(super) signer: Option<Signer>,
    pub(super) now: Now,
}

impl Answer {
    pub(super) fn new(message: &Message<'_>, from: FiveTuple, now: Now) -> Self {
        Self {
            method: message.method(),
            transaction_id: message.transaction_id(),
            has_fingerprint: message.has_fingerprint(),
            from,
            signer: None,
            now,
        }
    }
}

impl Server {
    /// Writes a success response.
    pub(super) fn succeed(
        &mut self,
        answer: &Answer,
        reply: &mut Vec<u8>,
        attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) {
        self.count(answer, None);
        let builder = Builder::new(reply, answer.method, Class::Success, answer.transaction_id);
        let software = self.config.software.as_deref().map(Software);
        finish(attributes(builder).put_some(software.as_ref()), answer);
    }

    /// Writes an error response: no reason phrase, which would only make it larger. What is not
    /// authenticated gets the least the RFCs allow.
    pub(super) fn refuse(&mut self, answer: &Answer, reject: &Reject, reply: &mut Vec<u8>) {
        let code = reject.code();
        self.count(answer, Some(code));
        let builder = Builder::new(reply, answer.method, Class::Error, answer.transaction_id)
            .put(&ErrorCode { number: code.number(), reason: "" });
        let builder = match reject {
            Reject::UnknownAttributes(types) => builder.unknown_attributes(types),
            Reject::Elsewhere(Alternate { address, name }) => {
                let name = name.as_deref().map(AlternateDomain);
                builder.put(&AlternateServer(*address)).put_some(name.as_ref())
            }
            _ if matches!(code, Code::Unauthenticated | Code::StaleNonce) => {
                self.authenticator.challenge(builder, &answer.from, answer.now)
            }
            _ => builder,
        };
        finish(builder, answer);
    }

    fn count(&mut self, answer: &Answer, code: Option<Code>) {
        if let Some(method) = RequestMethod::of(answer.method) {
            self.stats.answer(method, answer.from.transport, code);
        }
    }

    /// RFC 8489 §11: DTLS is not for classic STUN, whose requests are told so there.
    pub(super) fn refuse_classic(
        &mut self,
        from: &FiveTuple,
        packet: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<Verdict, DropReason> {
        let request = ClassicRequest::parse(packet)
            .filter(|_| from.transport == Transport::Dtls)
            .ok_or(DropReason::Malformed)?;
        if !self.may_be_answered(from) {
            return Err(DropReason::SourceForbidden);
        }
        if let Some(method) = RequestMethod::of(request.method) {
            self.stats.answer(method, from.transport, Some(Code::ServerError));
        }
        request.refuse(reply);
        Ok(Verdict::Reply)
    }
}

/// Signature and fingerprint, where there are to be any.
fn finish(builder: Builder<'_>, answer: &Answer) {
    let builder = match answer.signer {
        Some(Signer { key, kind }) => builder.integrity(&key, kind),
        None => builder,
    };
    let builder = if answer.has_fingerprint { builder.fingerprint() } else { builder };
    builder.finish();
}
