use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use gateway_queue::{ByteStream, Content};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use runtime_api::{Body, BodyError, full};

/// The body of a call that was kept, whose length is known as it was when the call came in.
pub(crate) fn body(content: Content, length: u64) -> Body {
    match content {
        Content::Bytes(bytes) => full(bytes),
        Content::Stream(pieces) => Measured { pieces, left: length }.boxed_unsync(),
    }
}

/// Pieces of which it is known how many bytes they are in all.
struct Measured {
    pieces: ByteStream,
    left: u64,
}

impl http_body::Body for Measured {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let piece = ready!(self.pieces.as_mut().poll_next(cx)).transpose()?;
        let Some(piece) = piece else { return Poll::Ready(None) };
        self.left = self.left.saturating_sub(piece.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body::Body as _;

    use super::*;

    #[tokio::test]
    async fn a_body_tells_how_long_it_is() {
        let pieces = ["ab", "", "c"].map(|piece| Ok(Bytes::from(piece)));
        for content in [Content::Bytes("abc".into()), Content::Stream(Box::pin(stream::iter(pieces)))] {
            let body = body(content, 3);
            assert_eq!(body.size_hint().exact(), Some(3));
            assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        }
        assert!(body(Content::Bytes(Bytes::new()), 0).is_end_stream());
    }
}
