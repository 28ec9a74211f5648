import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

/** Asks the door for clients of Postgres with JDBC, and what tools over JDBC ask before they show a table. One line for each thing seen. */
public class Door {
    private static final String ENDLESS = "SELECT count(*) FROM range(100000000000) a WHERE a.value % 7 = 3";

    private interface Question {
        void ask() throws SQLException;
    }

    private static String state(Question question) {
        try {
            question.ask();
            return "no error";
        } catch (SQLException error) {
            return error.getSQLState();
        }
    }

    static List<String> column(ResultSet rows, String name) throws SQLException {
        List<String> values = new ArrayList<>();
        while (rows.next()) values.add(rows.getString(name));
        return values;
    }

    /** What tools over JDBC ask of the catalogue before they show anything. */
    private static void describe(DatabaseMetaData about) throws SQLException {
        System.out.println("catalogs " + column(about.getCatalogs(), "TABLE_CAT"));
        System.out.println("base tables " + column(about.getTables("sluice", null, "%", new String[] {"TABLE"}), "TABLE_NAME"));
        System.out.println("views " + column(about.getTables(null, "public", "s%", new String[] {"VIEW"}), "TABLE_NAME"));
        System.out.println("kinds " + column(about.getTableTypes(), "TABLE_TYPE").contains("VIEW"));
        System.out.println("primary keys " + column(about.getPrimaryKeys(null, "public", "events"), "COLUMN_NAME"));
        System.out.println("indexes " + column(about.getIndexInfo(null, "public", "events", false, true), "INDEX_NAME"));
        System.out.println("imported " + column(about.getImportedKeys(null, "public", "events"), "FKCOLUMN_NAME"));
        System.out.println("exported " + column(about.getExportedKeys(null, "public", "events"), "FKCOLUMN_NAME"));
        System.out.println("identifier " + column(about.getBestRowIdentifier(null, "public", "events", DatabaseMetaData.bestRowSession, true), "COLUMN_NAME"));
        try (ResultSet time = about.getColumns(null, "public", "events", "time")) {
            time.next();
            System.out.println("time " + time.getString("TYPE_NAME") + " " + time.getInt("DATA_TYPE") + " " + time.getString("IS_AUTOINCREMENT") + " " + time.getString("COLUMN_DEF"));
        }
        System.out.println("types " + column(about.getTypeInfo(), "TYPE_NAME").containsAll(List.of("text", "int8", "float8", "bool", "timestamptz", "json")));
        System.out.println("functions " + column(about.getFunctions(null, "public", "json_get_s%"), "FUNCTION_NAME"));
        System.out.println("arguments " + column(about.getFunctionColumns(null, "public", "histogram_quantile", "%"), "COLUMN_NAME"));
        System.out.println("procedures " + column(about.getProcedures(null, null, "%"), "PROCEDURE_NAME"));
        System.out.println("rights " + column(about.getTablePrivileges(null, "public", "events"), "PRIVILEGE"));
        System.out.println("rights to columns " + column(about.getColumnPrivileges(null, "public", "events", "time"), "PRIVILEGE"));
        System.out.println("keywords " + about.getSQLKeywords().contains("vacuum"));
    }

    /** A port and a token. */
    static Connection connect(String[] arguments) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", "anyone");
        properties.setProperty("password", arguments[1]);
        properties.setProperty("sslmode", "disable");
        return DriverManager.getConnection("jdbc:postgresql://127.0.0.1:" + arguments[0] + "/sluice", properties);
    }

    public static void main(String[] arguments) throws Exception {
        try (Connection connection = connect(arguments)) {
            String ask = "SELECT body, severity, \"time\", attrs['mark'] FROM logs WHERE attrs['mark'] = ? AND severity >= ? ORDER BY body";
            try (PreparedStatement statement = connection.prepareStatement(ask)) {
                List<String> bodies = new ArrayList<>();
                // often enough that the driver makes it a named statement in binary
                for (int n = 0; n < 8; n++) {
                    statement.setString(1, "pg");
                    statement.setInt(2, 9);
                    ResultSet rows = statement.executeQuery();
                    bodies.clear();
                    while (rows.next()) bodies.add(rows.getString(1) + " " + rows.getInt(2) + " " + (rows.getTimestamp(3) != null) + " " + rows.getString(4));
                }
                System.out.println("bodies " + bodies);
            }
            DatabaseMetaData about = connection.getMetaData();
            System.out.println("tables " + column(about.getTables(null, "public", "%", new String[] {"TABLE", "VIEW"}), "TABLE_NAME"));
            System.out.println("columns " + column(about.getColumns(null, "public", "logs", "%"), "COLUMN_NAME").subList(0, 4));
            System.out.println("schemas " + column(about.getSchemas(), "TABLE_SCHEM").contains("public"));
            describe(about);
            // rows that are fetched piece by piece
            connection.setAutoCommit(false);
            try (Statement statement = connection.createStatement()) {
                statement.setFetchSize(100);
                System.out.println("fetched " + column(statement.executeQuery("SELECT value FROM range(1000)"), "value").size());
            }
            connection.commit();
            connection.setAutoCommit(true);
            try (Statement statement = connection.createStatement()) {
                statement.setQueryTimeout(1);
                System.out.println("late " + state(() -> statement.executeQuery(ENDLESS)));
                statement.setQueryTimeout(0);
                System.out.println("write " + state(() -> statement.executeUpdate("DELETE FROM events")));
                System.out.println("column " + state(() -> statement.executeQuery("SELECT nope FROM logs")));
            }
        }
    }
}
