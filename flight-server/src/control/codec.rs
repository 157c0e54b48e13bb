//! The codec of the control stream: each gRPC message is one postcard-encoded value. Next: `service.rs`.

use std::marker::PhantomData;

use bytes::{Buf, BufMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use windrow_core::message::{decode, encode};

use crate::wire::to_status;

/// Sends `E` and receives `D`.
#[derive(Debug)]
pub(crate) struct PostcardCodec<E, D>(PhantomData<fn() -> (E, D)>);

impl<E, D> Default for PostcardCodec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E: Serialize + Send + 'static, D: DeserializeOwned + Send + 'static> Codec for PostcardCodec<E, D> {
    type Encode = E;
    type Decode = D;
    type Encoder = PostcardEncoder<E>;
    type Decoder = PostcardDecoder<D>;

    fn encoder(&mut self) -> Self::Encoder {
        PostcardEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        PostcardDecoder(PhantomData)
    }
}

/// Writes messages.
#[derive(Debug)]
pub(crate) struct PostcardEncoder<E>(PhantomData<fn() -> E>);

impl<E: Serialize> Encoder for PostcardEncoder<E> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, item: E, destination: &mut EncodeBuf<'_>) -> Result<(), Status> {
        destination.put(encode(&item).map_err(|error| to_status(&error))?);
        Ok(())
    }
}

/// Reads messages. Bytes that are no message end the stream with a status and never a panic.
#[derive(Debug)]
pub(crate) struct PostcardDecoder<D>(PhantomData<fn() -> D>);

impl<D: DeserializeOwned> Decoder for PostcardDecoder<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        let bytes = source.copy_to_bytes(source.remaining());
        decode(&bytes).map(Some).map_err(|error| to_status(&error))
    }
}
