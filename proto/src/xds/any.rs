//! Messages of any type (`google.protobuf.Any`), and those of ours that travel beside a resource.

use prost::Message;
use prost_types::Any;

use super::cx::Cx;
use super::generated::envoy::config::core::v3::Metadata;

/// Under which what is ours travels.
pub(super) const OURS: &str = "outrigger";

/// The full name of a message's type.
pub(super) fn type_of(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// Whether a message is of this type.
pub(super) fn is<M: prost::Name>(any: &Any) -> bool {
    type_of(any) == M::full_name()
}

pub(super) fn decode<M: Message + Default>(cx: &mut Cx, any: &Any) -> Option<M> {
    M::decode(any.value.as_slice()).map_or_else(|error| cx.fail("", error.to_string()), Some)
}

/// Goes on with what a message of any type says.
pub(super) fn decoded<M: Message + Default, T>(
    cx: &mut Cx,
    any: &Any,
    f: impl FnOnce(&mut Cx, M) -> Option<T>,
) -> Option<T> {
    let message = decode(cx, any)?;
    f(cx, message)
}

/// What is ours beside a resource; the default where there is nothing.
pub(super) fn ours<M: Message + Default + prost::Name>(cx: &mut Cx, metadata: Option<Metadata>) -> Option<M> {
    // Labels of a control plane.
    let Metadata { filter_metadata: _, typed_filter_metadata } = metadata.unwrap_or_default();
    let Some(any) = typed_filter_metadata.get(OURS) else { return Some(M::default()) };
    cx.within(format_args!("metadata.typed_filter_metadata[{OURS}]"), |cx| match is::<M>(any) {
        true => decode(cx, any),
        false => cx.fail("", format!("`{}` says nothing of this resource", type_of(any))),
    })
}
