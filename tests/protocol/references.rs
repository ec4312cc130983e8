//! Around the calls: slots are registered, references counted, records handed on.

use crate::machine::{Kind, Loc};
use crate::mutations::Mutation::*;
use crate::thread::{Thread, mark_of, user_data_of, word_of};
use crate::values::{Handle, mark, word};

impl Thread {
    /// The free slot is this thread's own. Hands the new occupant out by `told`.
    pub(crate) async fn register(&self, h: Handle, told: Loc) {
        let register = async {
            self.until(word_of(h), word::new(h, word::FREE)).await;
            self.forget_waiters(h).await;
            self.store(user_data_of(h), h.id()).await;
            let nobody = self.mark(h, mark::NOBODY);
            let mut stores = [(mark_of(h), nobody), (word_of(h), word::live(h)), (told, 1)];
            if self.is(MarkAfterWord) {
                stores.swap(0, 1);
            } else if self.is(MarkAfterHandOut) {
                stores.rotate_left(1);
            }
            for (at, value) in stores {
                self.store(at, value).await;
            }
        };
        self.step("register", h, register).await;
    }

    pub(crate) async fn retain(&self, h: Handle) -> bool {
        let attempt = || async {
            let word = self.load(word_of(h)).await;
            if !word::is(word, h, word::LIVE) && !self.is(RetainAfterRevoke) {
                return Some(false);
            }
            self.cas(word_of(h), word, word + 1).await.is_ok().then_some(true)
        };
        self.step("retain", h, self.port.repeat(attempt)).await
    }

    pub(crate) async fn release(&self, h: Handle) {
        let attempt = || async {
            let word = self.load(word_of(h)).await;
            let done = match word::strong(word) {
                _ if !word::is(word, h, word::LIVE) => true,
                1 => self.end(h, word).await,
                _ => self.cas(word_of(h), word, word - 1).await.is_ok(),
            };
            done.then_some(())
        };
        self.step("release", h, self.port.repeat(attempt)).await;
    }

    /// A new thread takes the record of one that has ended.
    pub(crate) async fn take_record(&self) {
        let at = Loc(Kind::InUse, self.record);
        let attempt = || async {
            self.until(at, 0).await;
            self.cas(at, 0, 1).await.ok()
        };
        self.port.repeat(attempt).await;
    }

    pub(crate) async fn give_record_back(&self) {
        self.drop_bias().await;
        self.store(Loc(Kind::InUse, self.record), 0).await;
    }
}
