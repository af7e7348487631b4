/* Work that any thread can post to the loop thread. */
#ifndef COP_COORDINATOR_MAIL_H
#define COP_COORDINATOR_MAIL_H

typedef struct coord_engine coord_engine;

/* A piece of work: see coord_post in engine.h. Its memory belongs to the thread that posts it. */
typedef struct coord_mail coord_mail;
struct coord_mail {
    void (*run)(coord_engine *engine, coord_mail *mail); /* may free or reuse the mail */
    coord_mail *next;                                    /* used by the mailbox */
};

#endif
