// Asks the door for clients of Postgres with pgx, as it comes from its module. Prints what it saw, as JSON.
//
// Usage: pgx PORT TOKEN
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const endless = "SELECT count(*) FROM range(100000000000) a WHERE a.value % 7 = 3"

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func code(err error) string {
	var failure *pgconn.PgError
	if errors.As(err, &failure) {
		return failure.Code
	}
	return fmt.Sprint(err)
}

func main() {
	url := fmt.Sprintf("postgres://anyone:%s@127.0.0.1:%s/sluice?sslmode=disable", os.Args[2], os.Args[1])
	ctx := context.Background()
	seen := map[string]any{}
	connection, err := pgx.Connect(ctx, url)
	must(err)

	ask := `SELECT body, severity, "time", attrs['mark'] FROM logs WHERE attrs['mark'] = $1 AND severity >= $2 ORDER BY body`
	rows, err := connection.Query(ctx, ask, "pg", 9)
	must(err)
	bodies := []string{}
	for rows.Next() {
		var body, mark string
		var severity int32
		var at time.Time
		must(rows.Scan(&body, &severity, &at, &mark))
		bodies = append(bodies, body)
	}
	must(rows.Err())
	seen["bodies"] = bodies
	var count int64
	must(connection.QueryRow(ctx, `SELECT count(*) FROM logs WHERE "time" > $1`, time.Unix(0, 0)).Scan(&count))
	seen["since"] = count
	attrs := map[string]string{}
	must(connection.QueryRow(ctx, "SELECT attrs FROM logs WHERE attrs['mark'] = 'pg' LIMIT 1").Scan(&attrs))
	seen["map"] = attrs

	// a client that gives up asks to cancel, on another connection
	short, cancel := context.WithTimeout(ctx, time.Second)
	err = connection.QueryRow(short, endless).Scan(&count)
	cancel()
	seen["late"] = errors.Is(err, context.DeadlineExceeded)

	pool, err := pgxpool.New(ctx, url)
	must(err)
	must(pool.QueryRow(ctx, "SELECT 1").Scan(&count))
	batch := &pgx.Batch{}
	batch.Queue("SELECT 1")
	batch.Queue("SELECT nope FROM logs")
	seen["batch"] = code(pool.SendBatch(ctx, batch).Close())
	_, err = pool.Exec(ctx, "DELETE FROM events")
	seen["write"] = code(err)
	must(json.NewEncoder(os.Stdout).Encode(seen))
}
