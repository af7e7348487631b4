/* Work for the loop thread, posted by any other. */
#ifndef COP_COORDINATOR_MAIL_H
#define COP_COORDINATOR_MAIL_H

typedef struct coord_engine coord_engine;

/* Storage is the poster's. */
typedef struct coord_mail coord_mail;
struct coord_mail {
    void (*run)(coord_engine *engine, coord_mail *mail);
    coord_mail *next;
};

#endif
