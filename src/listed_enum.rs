//! Enums with the list of their variants, made from one place: a variant that is added cannot be left out of the list.
//!
//! `listed!` declares the enum and its `ALL`, in order. With `Variant => "name"` it also declares `name`. Owns no data
//! and knows no enum. No limits: a macro. Cost: none at run time: `ALL` is a constant, and `name` is one look-up.

/// Declares an enum with `ALL`, and with `name` where each variant has one.
macro_rules! listed {
    (@body $(#[$of_enum:meta])* $visible:vis enum $type:ident { $($(#[$of:meta])* $variant:ident,)* }) => {
        $(#[$of_enum])*
        $visible enum $type {
            $($(#[$of])* $variant,)*
        }

        impl $type {
            $visible const ALL: [Self; [$(stringify!($variant)),*].len()] = [$(Self::$variant),*];
        }
    };
    ($(#[$of_enum:meta])* $visible:vis enum $type:ident { $($(#[$of:meta])* $variant:ident,)* }) => {
        listed! { @body $(#[$of_enum])* $visible enum $type { $($(#[$of])* $variant,)* } }
    };
    ($(#[$of_enum:meta])* $visible:vis enum $type:ident { $($(#[$of:meta])* $variant:ident => $name:literal,)* }) => {
        listed! { @body $(#[$of_enum])* $visible enum $type { $($(#[$of])* $variant,)* } }

        impl $type {
            #[must_use]
            $visible fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    listed! {
        #[derive(Clone, Copy, Debug, PartialEq)]
        enum Fruit {
            /// Has a comment.
            Apple => "apple",
            Pear => "pear",
        }
    }

    #[test]
    fn all_variants_are_listed_in_order_with_their_names() {
        assert_eq!(Fruit::ALL, [Fruit::Apple, Fruit::Pear]);
        assert_eq!(Fruit::ALL.map(Fruit::name), ["apple", "pear"]);
    }
}
