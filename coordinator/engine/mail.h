/* Work that any thread can post to the loop thread. */
#ifndef COP_COORDINATOR_MAIL_H
#define COP_COORDINATOR_MAIL_H

typedef struct coord_engine coord_engine;

/* Its memory belongs to the poster. */
typedef struct coord_mail coord_mail;
struct coord_mail {
    void (*run)(coord_engine *engine, coord_mail *mail);
    coord_mail *next;
};

#endif
