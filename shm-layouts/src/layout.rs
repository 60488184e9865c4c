//! The macro that defines a shared struct, asserts its layout and records it for [`crate::reflect`].

/// Defines `#[repr(C)]` structs whose offsets are written down, asserted at compile time and reflected.
macro_rules! layout {
    ($(
        $(#[doc = $sdoc:literal])*
        struct $name:ident: $size:literal bytes, aligned $align:literal {
            $( $(#[doc = $fdoc:literal])* $offset:literal => $field:ident: $ty:ty, )*
        }
    )*) => {$(
        $(#[doc = $sdoc])*
        #[cfg_attr(not(loom), derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout))]
        #[repr(C, align($align))]
        pub struct $name {
            $( $(#[doc = $fdoc])* pub $field: $ty, )*
        }
        // Loom's atomics are larger, and lie in no segment.
        #[cfg(not(loom))]
        const _: () = {
            assert!(core::mem::size_of::<$name>() == $size, "size drifted");
            assert!(core::mem::align_of::<$name>() == $align, "alignment drifted");
            $( assert!(core::mem::offset_of!($name, $field) == $offset, "offset drifted"); )*
        };
        impl $name {
            /// This struct as [`crate::reflect`] shows it.
            pub const REFLECT: crate::reflect::Struct = crate::reflect::Struct {
                name: stringify!($name),
                doc: concat!($($sdoc, "\n"),*),
                size: $size,
                align: $align,
                fields: &[$( crate::reflect::Field {
                    name: stringify!($field),
                    offset: $offset,
                    size: core::mem::size_of::<$ty>(),
                    ty: stringify!($ty),
                    doc: concat!($($fdoc, "\n"),*),
                }, )*],
            };
        }
    )*};
}

/// Defines public constants and records them for [`crate::reflect`].
macro_rules! constants {
    ($table:ident: $( $(#[doc = $doc:literal])* $name:ident: $ty:ty = $value:expr; )*) => {
        $( $(#[doc = $doc])* pub const $name: $ty = $value; )*
        /// The constants of this module as [`crate::reflect`] shows them.
        pub const $table: &[crate::reflect::Constant] = &[
            $( crate::reflect::Constant {
                name: stringify!($name),
                ty: stringify!($ty),
                value: $name as u64,
                doc: concat!($($doc, "\n"),*),
            }, )*
        ];
    };
}
