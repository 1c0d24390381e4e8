//! Which of two owners goes first on a target.
//!
//! Two platforms may both want to update one device. Somebody has to come first, and it is not a question of who asked last: the
//! operator at the device does, then the adapters in the order the operator wrote down.

use crate::job::OPERATOR;

/// True when `a` goes before `b` on a target with this list: the operator first, then the list, then all others, who are equal.
pub fn outranks(list: &[String], a: &str, b: &str) -> bool {
    rank(list, a) < rank(list, b)
}

fn rank(list: &[String], owner: &str) -> usize {
    if owner == OPERATOR {
        return 0;
    }
    list.iter()
        .position(|name| name == owner)
        .map_or(usize::MAX, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list() -> Vec<String> {
        vec!["dji".into(), "kit".into()]
    }

    #[test]
    fn the_operator_comes_first_then_the_list_then_all_others_alike() {
        for (a, b, expected) in [
            ("operator", "dji", true),
            ("operator", "other", true),
            ("dji", "operator", false),
            ("dji", "kit", true),
            ("kit", "dji", false),
            ("kit", "other", true),
            ("other", "kit", false),
            ("other", "another", false),
            ("another", "other", false),
            ("dji", "dji", false),
            ("operator", "operator", false),
        ] {
            assert_eq!(outranks(&list(), a, b), expected, "{a} before {b}");
        }
        assert!(!outranks(&[], "dji", "kit"));
        assert!(
            outranks(&[OPERATOR.into(), "dji".into()], OPERATOR, "dji"),
            "the operator cannot be put further down"
        );
        let last = ["dji".to_owned(), OPERATOR.into()];
        assert!(!outranks(&last, "dji", OPERATOR));
    }

    proptest! {
        #[test]
        fn no_two_owners_each_go_first_and_the_order_has_no_circle(
            list in prop::collection::vec("[a-e]", 0..4),
            a in "[a-f]|operator", b in "[a-f]|operator", c in "[a-f]|operator",
        ) {
            let before = |x: &str, y: &str| outranks(&list, x, y);
            prop_assert!(!before(&a, &a));
            prop_assert!(!(before(&a, &b) && before(&b, &a)));
            prop_assert!(!before(&a, &b) || !before(&b, &c) || before(&a, &c));
            // Who is equal to both of two owners has them equal too: nobody is squeezed in between.
            let alike = |x: &str, y: &str| !before(x, y) && !before(y, x);
            prop_assert!(!alike(&a, &b) || !alike(&b, &c) || alike(&a, &c));
        }
    }
}
