/* Bugs on purpose, to show that the simulator sees them (tests/sim, docs/RELIABILITY.md). Only the
 * program sim-planted is built with COP_PLANTS; there, COP_PLANT(NAME, right, wrong) is `wrong` if
 * that bug was chosen. Everywhere else it is `right` and nothing more. */
#ifndef COP_BASE_PLANT_H
#define COP_BASE_PLANT_H

/* X(name, what is wrong) */
#define COP_PLANT_TABLE(X) X(STALE_RESULT, "a late result of an earlier step is taken for this one")

typedef enum cop_plant {
    COP_PLANT_NONE,
#define X(name, text) COP_PLANT_##name,
    COP_PLANT_TABLE(X)
#undef X
        COP_PLANT_COUNT
} cop_plant;

#ifdef COP_PLANTS
extern cop_plant cop_planted;
#    define COP_PLANT(name, right, wrong) (cop_planted == COP_PLANT_##name ? (wrong) : (right))
#else
#    define COP_PLANT(name, right, wrong) (right)
#endif

#endif
